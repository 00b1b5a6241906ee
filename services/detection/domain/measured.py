"""Faces as the engine measured them, in the words that are stored."""

from __future__ import annotations

from datetime import timedelta

from services.detection.domain.model import Captured, FoundFace, QualityFigures
from services.detection.inference.faces import DetectedFace
from shared.faces.embeddings import Vectors, encode_embedding
from shared.faces.quality import FaceQuality
from shared.imaging.capture import CaptureTime


def read_captured(seen: CaptureTime | None) -> Captured | None:
    """A capture time as the photo itself tells it."""
    if seen is None:
        return None
    offset = None if seen.utc_offset is None else seen.utc_offset // timedelta(minutes=1)
    return Captured(seen.at, seen.precision, offset)


def to_figures(quality: FaceQuality) -> QualityFigures:
    """The parts of quality that are stored."""
    return QualityFigures(
        overall=quality.overall,
        size=quality.size,
        sharpness=quality.sharpness,
        pose=quality.pose,
        yaw=quality.head.yaw,
        pitch=quality.head.pitch,
        roll=quality.head.roll,
    )


def to_found(face: DetectedFace, *, confidence: float) -> FoundFace:
    """A face that was embedded, as it is stored with ``confidence``."""
    return FoundFace(
        box=face.box,
        landmarks=tuple(face.landmarks.reshape(-1).tolist()),
        confidence=confidence,
        quality=to_figures(face.quality),
        embedding=encode_embedding(vector_of(face)),
        norm=face.embedding_norm or 0.0,
    )


def vector_of(face: DetectedFace) -> Vectors:
    """The unit vector (D,) of a face that was looked for with embeddings."""
    if face.embedding is None:
        raise ValueError("the face was measured without an embedding")
    return face.embedding
