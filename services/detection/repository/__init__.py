"""SQL of the detection service: its own tables, and reads of others'."""
