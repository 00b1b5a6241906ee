"""What is found on photos: the server's answers, and the same as the worker reads them."""

from __future__ import annotations

from typing import Final

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import faces_pb2
from services.detection.convert.faces import POINTS, to_box, to_landmarks, to_quality
from services.detection.convert.times import from_captured, to_captured
from services.detection.domain.looking import Sight
from services.detection.domain.model import (
    Captured,
    FoundFace,
    OptionOverrides,
    PhotoFailed,
    PhotoFound,
    PhotoLook,
    QualityFigures,
)
from services.detection.inference.faces import DetectedFace
from shared.errors import InvalidRequest, KithError, Reason
from shared.faces.boxes import Box
from shared.faces.embeddings import encode_embedding
from shared.faces.quality import FaceQuality
from shared.imaging.source import PhotoSource

MAX_FACES: Final = 500
MAX_FACE_PX: Final = 100_000


def from_image(image: types_pb2.Image) -> PhotoSource:
    """Where to read a photo. Raises :class:`InvalidRequest` unless exactly one of content and uri is set."""
    kind = image.WhichOneof("source")
    if kind is None:
        raise InvalidRequest("image must have content or uri", field="image")
    return PhotoSource(content=image.content) if kind == "content" else PhotoSource(uri=image.uri)


def from_options(options: pb.DetectionOptions) -> OptionOverrides:
    """How to look. Raises :class:`InvalidRequest` naming the option that is out of range."""
    overrides = OptionOverrides(
        min_confidence=options.min_confidence if options.HasField("min_confidence") else None,
        min_face_px=options.min_face_px if options.HasField("min_face_px") else None,
        min_quality=options.min_quality if options.HasField("min_quality") else None,
        max_faces=options.max_faces if options.HasField("max_faces") else None,
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
    )


def to_image_faces(sight: Sight, model_version: str) -> pb.ImageFaces:
    """A photo and its faces as a message."""
    image = sight.image
    captured = Captured(image.captured.at, image.captured.precision) if image.captured else None
    return pb.ImageFaces(
        faces=[_to_detected_face(face, model_version) for face in sight.faces],
        width=image.width,
        height=image.height,
        orientation=image.orientation,
        captured_at=to_captured(captured),
        difference_hash=image.difference_hash,
        model_version=model_version,
    )


def to_reply_failure(sequence: int, error: KithError) -> types_pb2.ItemFailure:
    """Why one photo of a stream failed."""
    return types_pb2.ItemFailure(id=str(sequence), reason=error.reason.value, message=error.message)


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


def _to_detected_face(face: DetectedFace, model_version: str) -> pb.DetectedFace:
    message = pb.DetectedFace(
        box=to_box(face.box),
        landmarks=to_landmarks(face.landmarks.reshape(-1).tolist()),
        confidence=face.confidence,
        quality=to_quality(_figures(face.quality)),
    )
    if face.embedding is not None:
        message.embedding.model_version = model_version
        message.embedding.values.extend(face.embedding.tolist())
        message.embedding_norm = face.embedding_norm or 0.0
    return message


def _figures(quality: FaceQuality) -> QualityFigures:
    return QualityFigures(
        overall=quality.overall,
        size=quality.size,
        sharpness=quality.sharpness,
        pose=quality.pose,
        yaw=quality.head.yaw,
        pitch=quality.head.pitch,
        roll=quality.head.roll,
    )


def _from_detected_face(message: pb.DetectedFace) -> FoundFace:
    box, points = message.box, [getattr(message.landmarks, name) for name in POINTS]
    return FoundFace(
        box=Box(box.x, box.y, box.width, box.height),
        landmarks=tuple(value for point in points for value in (point.x, point.y)),
        confidence=message.confidence,
        quality=_from_quality(message.quality),
        embedding=encode_embedding(message.embedding.values),
        norm=message.embedding_norm,
    )


def _from_quality(message: faces_pb2.FaceQuality) -> QualityFigures:
    return QualityFigures(
        overall=message.overall,
        size=message.size,
        sharpness=message.sharpness,
        pose=message.pose,
        yaw=message.yaw,
        pitch=message.pitch,
        roll=message.roll,
    )
