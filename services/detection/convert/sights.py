"""Photos that come to a server, and what it found on them."""

from __future__ import annotations

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2 as pb
from services.detection.convert.geometry import to_box, to_landmarks, to_quality
from services.detection.convert.times import to_captured
from services.detection.domain.looking import Sight
from services.detection.domain.model import Captured, QualityFigures
from services.detection.inference.faces import DetectedFace
from shared.errors import InvalidRequest, KithError
from shared.faces.quality import FaceQuality
from shared.imaging.source import PhotoSource


def from_image(image: types_pb2.Image) -> PhotoSource:
    """Where to read a photo. Raises :class:`InvalidRequest` unless exactly one of content and uri is set."""
    kind = image.WhichOneof("source")
    if kind is None:
        raise InvalidRequest("image must have content or uri", field="image")
    return PhotoSource(content=image.content) if kind == "content" else PhotoSource(uri=image.uri)


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
