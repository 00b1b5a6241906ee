"""What a detection server answers, as the worker reads it, and how it is asked to look."""

from __future__ import annotations

from typing import Final

from kith.detection.v1 import detection_pb2 as pb
from services.detection.convert.geometry import from_box, from_landmarks, from_quality
from services.detection.convert.times import from_captured
from services.detection.domain.model import (
    FoundFace,
    OptionOverrides,
    PackDescription,
    PhotoFailed,
    PhotoFound,
    PhotoLook,
)
from shared.errors import InvalidRequest, Reason
from shared.faces.embeddings import encode_embedding

MAX_FACES: Final = 500
MAX_FACE_PX: Final = 100_000


def from_options(options: pb.DetectionOptions) -> OptionOverrides:
    """How to look. Raises :class:`InvalidRequest` naming the option that is out of range."""
    overrides = OptionOverrides(
        min_confidence=options.min_confidence if options.HasField("min_confidence") else None,
        min_face_px=options.min_face_px if options.HasField("min_face_px") else None,
        min_quality=options.min_quality if options.HasField("min_quality") else None,
        max_faces=options.max_faces if options.HasField("max_faces") else None,
        second_pass=options.second_pass if options.HasField("second_pass") else None,
    )
    _check_between("min_confidence", overrides.min_confidence, 0, 1)
    _check_between("min_face_px", overrides.min_face_px, 0, MAX_FACE_PX)
    _check_between("min_quality", overrides.min_quality, 0, 1)
    _check_between("max_faces", overrides.max_faces, 1, MAX_FACES)
    return overrides


def to_options(options: OptionOverrides) -> pb.DetectionOptions:
    """How to look, as a message."""
    return pb.DetectionOptions(
        min_confidence=options.min_confidence,
        min_face_px=options.min_face_px,
        min_quality=options.min_quality,
        max_faces=options.max_faces,
        second_pass=options.second_pass,
    )


def from_model_info(message: pb.ModelInfo) -> PackDescription:
    """What a library has to know of a loaded pack."""
    return PackDescription(
        model_version=message.model_version,
        pack=message.pack,
        dimension=message.dimension,
        thresholds=dict(message.thresholds),
        calibration=dict(message.calibration),
    )


def from_reply(reply: pb.DetectStreamResponse, asset_id: str) -> PhotoLook:
    """What became of a photo, as the stream tells it."""
    if reply.WhichOneof("outcome") == "failure":
        return PhotoFailed(asset_id, reply.failure.reason, reply.failure.message)
    result = reply.result
    try:
        faces = tuple(_from_detected_face(face) for face in result.faces)
    except ValueError as error:
        return PhotoFailed(asset_id, Reason.INTERNAL_ERROR.value, f"a face without a usable embedding: {error}")
    return PhotoFound(
        asset_id=asset_id,
        faces=faces,
        width=result.width,
        height=result.height,
        orientation=result.orientation,
        captured=from_captured(result.captured_at, "captured_at"),
        difference_hash=result.difference_hash,
        model_version=result.model_version,
    )


def _check_between(name: str, value: float | None, low: int, high: int) -> None:
    # Written so that NaN, which is between nothing, is refused too.
    if value is not None and not low <= value <= high:
        raise InvalidRequest(f"options.{name} must be {low}..{high}", field=f"options.{name}")


def _from_detected_face(message: pb.DetectedFace) -> FoundFace:
    return FoundFace(
        box=from_box(message.box),
        landmarks=from_landmarks(message.landmarks),
        confidence=message.confidence,
        quality=from_quality(message.quality),
        embedding=encode_embedding(message.embedding.values),
        norm=message.embedding_norm,
    )
