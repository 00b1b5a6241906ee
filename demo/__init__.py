"""The main job, from photos to people, on the embedded stack: ``make demo``."""
