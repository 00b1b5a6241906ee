"""SQL of the clustering service: its own tables, and reads of others'."""
