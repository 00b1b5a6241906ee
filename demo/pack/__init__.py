"""Kith's own small model pack: how it is trained (torch) and where it lies (`kith_demo/`, plain ONNX)."""
