"""What the use cases reach beyond PostgreSQL: the detection server, as the worker sees it."""
