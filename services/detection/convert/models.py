"""Model packs."""

from __future__ import annotations

from typing import Any

from kith.detection.v1 import detection_pb2 as pb
from services.detection.inference.faces import ModelInfo


def to_model_info(info: ModelInfo) -> pb.ModelInfo:
    """A loaded pack as a message."""
    return pb.ModelInfo(
        pack=info.pack,
        model_version=info.version,
        dimension=info.dimension,
        providers=info.providers,
        sha256=info.sha256,
        licence=info.licence,
        rewrites=info.rewrites,
        thresholds=info.thresholds,
        runtime=info.runtime,
        calibration={name: float(value) for name, value in info.calibration.items() if _is_number(value)},
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
