"""Use cases of the detection service."""
