"""Messages of ImportFaces as columns, with what is wrong with single faces told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from google.protobuf.message import Message

from kith.detection.v1 import faces_pb2 as pb
from services.detection.convert.geometry import POINTS, from_landmarks
from services.detection.domain.importing import ImportedFaces, ImportTally, estimate_missing
from services.detection.inference.faces import MIN_GIVEN_PX
from shared.errors import InvalidRequest, Reason
from shared.faces.embeddings import encode_embeddings, normalise_each
from shared.ids import parse_asset_id
from shared.jobs.convert import to_failure
from shared.jobs.model import ItemFailure

MAX_FACES: Final = 500
MAX_PIXELS: Final = 1_000_000
MAX_NAME: Final = 128


@dataclass(slots=True)
class _Rows:
    """The faces of one message that passed, in order."""

    names: list[str] = field(default_factory=list)
    asset_ids: list[str] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    landmarks: list[tuple[float, ...]] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    vectors: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = field(default_factory=list)


def from_import(message: pb.ImportFacesRequest, number: int, dimension: int) -> tuple[ImportedFaces, list[ItemFailure]]:
    """The faces of message ``number`` of a stream (from 0), and those that cannot be stored.

    A face is named by its external id, or else by ``number.index``, as is one that fails because its id is too long. Blocks
    for some ten microseconds a face.
    """
    rows = _Rows()
    failures: list[ItemFailure] = []
    for index, face in enumerate(message.faces):
        name = f"{number}.{index}"
        try:
            if len(face.external_id) > MAX_NAME:
                raise InvalidRequest(f"external_id must be at most {MAX_NAME} characters")
            name = face.external_id or name
            _add_face(rows, face, name, dimension)
        except InvalidRequest as error:
            failures.append(ItemFailure(name, error.reason.value, error.message))
    units, norms, usable = normalise_each(np.array(rows.vectors, np.float32).reshape(-1, dimension))
    failures += [
        ItemFailure(rows.names[row], Reason.INVALID_FIELD.value, "embedding must be finite and not of length zero")
        for row in np.flatnonzero(~usable)
    ]
    boxes = np.array(rows.boxes, np.float32).reshape(-1, 4)
    landmarks = np.array(rows.landmarks, np.float32).reshape(-1, 5, 2)
    seen = np.isfinite(landmarks[:, 0, 0])
    faces = ImportedFaces(
        names=rows.names,
        asset_ids=rows.asset_ids,
        boxes=boxes,
        landmarks=estimate_missing(boxes, landmarks, seen),
        seen=seen,
        confidences=np.array(rows.confidences, np.float32),
        embeddings=encode_embeddings(units),
        norms=norms,
    )
    return (faces if usable.all() else faces.take(np.flatnonzero(usable))), failures


def to_import_response(tally: ImportTally) -> pb.ImportFacesResponse:
    """What became of an import."""
    return pb.ImportFacesResponse(
        created=tally.created,
        matched=tally.matched,
        failed=tally.failed,
        failures=[to_failure(failure) for failure in tally.failures],
    )


def check_size(message: pb.ImportFacesRequest) -> None:
    """Raise :class:`InvalidRequest` if a message holds too many faces."""
    if len(message.faces) > MAX_FACES:
        raise InvalidRequest(f"a message may hold {MAX_FACES} faces, not {len(message.faces)}", field="faces")


def _add_face(rows: _Rows, face: pb.ImportedFace, name: str, dimension: int) -> None:
    asset_id = parse_asset_id(face.asset_id)
    box = (face.box.x, face.box.y, face.box.width, face.box.height)
    # As wherever a place is given: a migration to another model measures the face there.
    near = all(abs(place) < MAX_PIXELS for place in box[:2])
    if not near or not all(MIN_GIVEN_PX <= side < MAX_PIXELS for side in box[2:]):
        raise InvalidRequest(
            f"box must be finite, at least {MIN_GIVEN_PX} pixels wide and high, and within {MAX_PIXELS} pixels"
        )
    if min(box[0] + box[2] / 2, box[1] + box[3] / 2) < 0:
        raise InvalidRequest("the centre of box must not be negative")
    if not 0 <= face.confidence <= 1:
        raise InvalidRequest("confidence must be 0..1")
    if len(face.embedding) != dimension:
        raise InvalidRequest(f"embedding must hold {dimension} numbers, not {len(face.embedding)}")
    rows.landmarks.append(_read_landmarks(face))
    rows.names.append(name)
    rows.asset_ids.append(asset_id)
    rows.boxes.append(box)
    rows.confidences.append(face.confidence)
    # Copied in one go: a repeated field knows how to become an array.
    rows.vectors.append(np.asarray(face.embedding, np.float32))


def _read_landmarks(face: pb.ImportedFace) -> tuple[float, ...]:
    """Ten numbers, or ten NaN if there are none."""
    if not face.HasField("landmarks"):
        return (math.nan,) * 10
    message: Message = face.landmarks
    values = from_landmarks(face.landmarks)
    if not all(message.HasField(point) for point in POINTS) or not all(abs(value) < MAX_PIXELS for value in values):
        raise InvalidRequest(f"landmarks must be five finite points, within {MAX_PIXELS} pixels")
    return values
