"""One rule per file; ``call`` is what they share."""
