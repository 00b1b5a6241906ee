"""The values that go into and come out of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shared.config import DetectionSettings, Provider
from shared.faces.boxes import Box
from shared.faces.quality import FaceQuality


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """What counts as a face, per photo. Sizes in pixels of the upright photo, the rest 0..1.

    ``min_face_px`` is held against the shorter side of the box; of more than ``max_faces`` the best by confidence are
    kept.
    """

    min_confidence: float
    min_face_px: float
    min_quality: float
    max_faces: int
    with_embeddings: bool = True

    @classmethod
    def from_settings(cls, settings: DetectionSettings, *, with_embeddings: bool = True) -> Self:
        """The house's defaults."""
        return cls(
            min_confidence=settings.min_confidence,
            min_face_px=settings.min_face_px,
            min_quality=settings.min_quality,
            max_faces=settings.max_faces,
            with_embeddings=with_embeddings,
        )


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFace:
    """One face of a photo, in pixels of the upright image.

    ``landmarks`` is (5, 2) float32: viewer's left eye, right eye, nose, left and right mouth corner.
    ``embedding`` is (D,) float32 of length 1 and ``embedding_norm`` its length before; both None if no
    embedding was asked for.
    """

    box: Box
    landmarks: NDArray[np.float32]
    confidence: float
    quality: FaceQuality
    embedding: NDArray[np.float32] | None
    embedding_norm: float | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What runs, and where.

    ``version`` names the embedding space, ``dimension`` was measured on the loaded model. ``provider_reason``
    says why ``provider`` was taken, ``providers`` is what onnxruntime reports, ``rewrites`` lists what was
    changed in the graphs at load, or why it was not.
    """

    pack: str
    version: str
    dimension: int
    detection_size: int
    detector_sha256: str
    recogniser_sha256: str
    provider: Provider
    provider_reason: str
    providers: tuple[str, ...]
    insightface_version: str
    onnxruntime_version: str
    licence: str | None
    thresholds: Mapping[str, float]
    calibration: Mapping[str, Any]
    rewrites: tuple[str, ...]
