"""Conformance of the embedded Qdrant, and of the Qdrant server at `KITH_QDRANT_URL`, where it is set.

The port of the URL is the gRPC port.
"""
