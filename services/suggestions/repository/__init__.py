"""SQL of the suggestions service: its own tables, and reads of others'."""
