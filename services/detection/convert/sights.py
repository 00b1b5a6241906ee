"""Photos that come to a server, and what it found on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2 as pb
from services.detection.convert.geometry import from_box, from_landmarks, to_box, to_landmarks, to_quality
from services.detection.convert.times import to_captured
from services.detection.domain.looking import Sight
from services.detection.domain.measured import read_captured, to_figures
from services.detection.inference.faces import MIN_GIVEN_PX, DetectedFace, GivenFace
from shared.errors import FieldViolation, InvalidRequest, KithError
from shared.imaging.source import PhotoSource

MAX_GIVEN: Final = 500
# Far beyond any photo; what lies further away is a mistake, and would overflow the arithmetic of pixels.
_LARGEST_PX: Final = 1e6


def from_image(image: types_pb2.Image, field: str = "image") -> PhotoSource:
    """Where to read a photo. Raises :class:`InvalidRequest` unless exactly one of content and uri is set."""
    kind = image.WhichOneof("source")
    if kind is None:
        raise InvalidRequest(f"{field} must have content or uri", field=field)
    return PhotoSource(content=image.content) if kind == "content" else PhotoSource(uri=image.uri)


def from_given_faces(messages: Sequence[pb.GivenFace]) -> list[GivenFace]:
    """Faces whose place is known. Raises :class:`InvalidRequest` naming each that is wrong."""
    if len(messages) > MAX_GIVEN:
        raise InvalidRequest(f"given_faces must hold at most {MAX_GIVEN} faces", field="given_faces")
    violations: list[FieldViolation] = []
    first: dict[str, int] = {}
    for index, message in enumerate(messages):
        field = f"given_faces[{index}]"
        if not message.id:
            violations.append(FieldViolation(f"{field}.id", f"{field}.id is required"))
        elif first.setdefault(message.id, index) != index:
            text = f"'{message.id}' is the id of given_faces[{first[message.id]}] already"
            violations.append(FieldViolation(f"{field}.id", text))
        box = message.box
        # Written so that NaN, which is no smaller than anything, is refused too.
        if not min(box.width, box.height) >= MIN_GIVEN_PX or not _are_finite(box.x, box.y, box.width, box.height):
            text = f"{field}.box must be finite and at least {MIN_GIVEN_PX} pixels wide and high"
            violations.append(FieldViolation(f"{field}.box", text))
        if message.HasField("landmarks"):
            points = from_landmarks(message.landmarks)
            if not _are_finite(*points) or len(set(points)) == 1:
                text = f"{field}.landmarks must be five finite points that do not coincide"
                violations.append(FieldViolation(f"{field}.landmarks", text))
    if violations:
        raise InvalidRequest(violations[0].description, violations=violations)
    return [_from_given_face(message) for message in messages]


def to_image_faces(sight: Sight, model_version: str) -> pb.ImageFaces:
    """A photo and its faces as a message."""
    image = sight.image
    return pb.ImageFaces(
        faces=[_to_detected_face(face, model_version) for face in sight.faces],
        width=image.width,
        height=image.height,
        orientation=image.orientation,
        captured_at=to_captured(read_captured(image.captured)),
        difference_hash=image.difference_hash,
        model_version=model_version,
    )


def to_reply_failure(sequence: int, error: KithError) -> types_pb2.ItemFailure:
    """Why one photo of a stream failed."""
    return types_pb2.ItemFailure(id=str(sequence), reason=error.reason.value, message=error.message)


def _from_given_face(message: pb.GivenFace) -> GivenFace:
    landmarks = None
    if message.HasField("landmarks"):
        landmarks = np.array(from_landmarks(message.landmarks), np.float32).reshape(5, 2)
    return GivenFace(message.id, from_box(message.box), landmarks)


def _are_finite(*values: float) -> bool:
    return all(abs(value) <= _LARGEST_PX for value in values)


def _to_detected_face(face: DetectedFace, model_version: str) -> pb.DetectedFace:
    message = pb.DetectedFace(
        box=to_box(face.box),
        landmarks=to_landmarks(face.landmarks.reshape(-1).tolist()),
        confidence=face.confidence,
        quality=to_quality(to_figures(face.quality)),
        given_id=face.given_id,
    )
    if face.embedding is not None:
        message.embedding.model_version = model_version
        message.embedding.values.extend(face.embedding.tolist())
        message.embedding_norm = face.embedding_norm or 0.0
    return message
