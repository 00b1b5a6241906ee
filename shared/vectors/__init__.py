"""Qdrant: an index of the vectors that PostgreSQL holds, which can be lost and rebuilt."""
