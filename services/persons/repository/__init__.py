"""SQL of the persons service: its own tables, and reads of others'."""
