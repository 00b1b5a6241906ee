"""The embedded Qdrant: Qdrant's own gRPC protocol over `qdrant-edge-py`, for development and demonstration.

Services talk to it through `AsyncQdrantClient(prefer_grpc=True)` exactly as they talk to a Qdrant server, so
nothing in them knows which one is there. What it promises, and what it leaves out:

- Search is exact, always: every query scores every point that passes the filter. There is no HNSW graph and
  no quantization; their settings are accepted, shown again by `Get`, and change nothing. Good for about
  100,000 points in one collection; beyond that use a Qdrant server.
- Dense vectors only. What is not supported is refused with UNIMPLEMENTED and its name, never ignored.
- A write is done and in the write-ahead log when it is acknowledged, whatever `wait` says. It survives the
  death of the process (kill -9). It is not synced to the disk for each write, so a power cut may lose the
  last seconds.
- It binds the loopback address only and has no authentication.
- The space of deleted points is not given back until the collection is deleted.

Start it with `python -m deploy.local.qdrant --data FOLDER --port PORT`.
"""
