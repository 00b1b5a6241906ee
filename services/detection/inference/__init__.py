"""From upright pixels to faces: model packs, onnxruntime sessions, the lean pipeline over them and the batcher in
front.

Knows neither gRPC nor SQL. :class:`services.detection.inference.engine.FaceEngine` is the door.
"""
