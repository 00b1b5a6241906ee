"""Grouping faces by their embeddings: arrays in, labels out. Knows no SQL, no gRPC, no job; bounded in
memory, deterministic.
"""
