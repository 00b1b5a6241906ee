"""Faces that detection missed: a box drawn by a person, measured and embedded where it was drawn.

The photo is read and embedded with no transaction open; what was true of the photo then is looked at again before anything
is stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from services.detection.domain.activating import agree_on_model, hold_model, refuse_other_model
from services.detection.domain.measured import read_captured, to_found
from services.detection.domain.model import (
    DetectionDeps,
    Face,
    FaceOrigin,
    FaceState,
    KnownFace,
    PackDescription,
    PhotoFound,
    PlacedFace,
)
from services.detection.domain.refreshing import queue_people_on
from services.detection.domain.searching import Looking
from services.detection.inference.faces import MIN_GIVEN_PX, GivenFace
from services.detection.repository.assets import get_asset, lock_captured_times
from services.detection.repository.faces import get_face
from services.detection.repository.found import insert_faces, lock_known_faces, write_embeddings, write_photos
from services.detection.repository.models import find_active_version
from shared.db.engine import Database, Transaction
from shared.db.outbox import queue_faces
from shared.errors import AlreadyExists, Contention, InvalidRequest, NotFound
from shared.faces.boxes import Box, iou_matrix
from shared.imaging.source import PhotoSource

_BOX = "box"
# A box travels as float32, which moves its far edges by less than this, in pixels.
_ROUNDING_PX = 0.01


@dataclass(frozen=True, slots=True)
class AddFace:
    """A box on a registered photo, in pixels of it upright."""

    library_id: str
    asset_id: str
    box: Box


@dataclass(frozen=True, slots=True)
class MeasuredFace:
    """The photo as it was read from ``uri``, with the one face."""

    uri: str
    photo: PhotoFound


async def measure_face(database: Database, looking: Looking, command: AddFace) -> MeasuredFace:
    """Read the photo and embed the box, with no transaction open.

    Raises :class:`NotFound` for a photo that is not registered, :class:`PreconditionFailed` with MODEL_MISMATCH if the
    library has another model than the server, :class:`InvalidRequest` for a box that is too small or not inside the photo, and
    as :meth:`FaceFinder.measure_given`.
    """
    _check_box(command.box)
    async with database.snapshot() as tx:
        asset = await get_asset(tx, command.library_id, command.asset_id)
        active = await find_active_version(tx, command.library_id)
    version = looking.pack.model_version
    refuse_other_model(active or version, version)
    if asset.width:
        # What was read before tells a wrong box without reading again.
        _check_inside(command.box, asset.width, asset.height)
    given = GivenFace(_BOX, command.box, None)
    try:
        sight = await looking.finder.measure_given(
            PhotoSource(uri=asset.uri), [given], caller=looking.lane, patience_s=looking.patience_s
        )
    except InvalidRequest as error:
        if any(violation.field.startswith("given_faces") for violation in error.violations):
            raise InvalidRequest("box must lie inside the photo", field=_BOX) from error
        raise
    image = sight.image
    _check_inside(command.box, image.width, image.height)
    photo = PhotoFound(
        asset_id=asset.asset_id,
        # Nobody's detector vouches for it, whatever the engine saw there.
        faces=(to_found(sight.faces[0], confidence=0.0),),
        width=image.width,
        height=image.height,
        orientation=image.orientation,
        captured=read_captured(image.captured),
        difference_hash=image.difference_hash,
        model_version=version,
    )
    return MeasuredFace(asset.uri, photo)


async def add_face(
    tx: Transaction,
    deps: DetectionDeps,
    pack: PackDescription,
    command: AddFace,
    measured: MeasuredFace,
) -> Face:
    """Store the measured face, and what was learnt of its photo; how far detection got with the photo stays.

    Raises :class:`AlreadyExists` with the id of the stored face that the box overlaps most, if that is the same face by the
    rule of re-detection; :class:`NotFound` or :class:`Contention` if the photo was deleted or moved meanwhile; and as
    :func:`agree_on_model`.
    """
    library_id, asset_id = command.library_id, command.asset_id
    before = await lock_captured_times(tx, library_id, [asset_id])
    if asset_id not in before:
        raise NotFound("asset", asset_id)
    if (await get_asset(tx, library_id, asset_id)).uri != measured.uri:
        raise Contention("the photo was registered with another uri meanwhile; send the call again")
    await agree_on_model(tx, deps, library_id, pack)
    await hold_model(tx, library_id, pack.model_version)
    known = await lock_known_faces(tx, library_id, [asset_id])
    _refuse_overlap(command.box, known, deps.settings.redetect_iou)
    placed = PlacedFace(deps.ids.new_uuid(), asset_id, measured.photo.faces[0])
    await insert_faces(tx, deps.clock, library_id, [placed], FaceOrigin.MANUAL)
    await write_embeddings(tx, library_id, pack.model_version, [placed])
    await write_photos(tx, deps.clock, library_id, [measured.photo], {asset_id: len(known) + 1}, detected=False)
    if await lock_captured_times(tx, library_id, [asset_id]) != before:
        await queue_people_on(tx, deps, library_id, [asset_id])
    # The photo may have got its capture time only now, and every point carries it.
    await queue_faces(tx, deps.clock, library_id, [placed.face_id, *(face.face_id for face in known)])
    return await get_face(tx, library_id, placed.face_id)


def _check_box(box: Box) -> None:
    numbers = (box.x, box.y, box.width, box.height)
    if not all(math.isfinite(number) for number in numbers):
        raise InvalidRequest("box must hold finite numbers", field=_BOX)
    if min(box.width, box.height) < MIN_GIVEN_PX:
        raise InvalidRequest(f"box must be at least {MIN_GIVEN_PX} pixels wide and high", field=_BOX)


def _check_inside(box: Box, width: int, height: int) -> None:
    beyond = (-box.x, -box.y, box.x + box.width - width, box.y + box.height - height)
    if max(beyond) > _ROUNDING_PX:
        raise InvalidRequest(f"box must lie inside the photo, which is {width} x {height} pixels upright", field=_BOX)


def _refuse_overlap(box: Box, known: list[KnownFace], min_iou: float) -> None:
    if not known:
        return
    stored = np.array([(face.box.x, face.box.y, face.box.width, face.box.height) for face in known])
    overlap = iou_matrix(np.array([(box.x, box.y, box.width, box.height)]), stored)[0]
    best = int(overlap.argmax())
    if overlap[best] < min_iou:
        return
    face = known[best]
    message = f"face '{face.face_id}' is there already"
    if face.state is not FaceState.ACTIVE:
        message += f", set to {face.state.value}; UpdateFace takes that back"
    raise AlreadyExists(message, metadata={"resource": "face", "id": str(face.face_id)})
