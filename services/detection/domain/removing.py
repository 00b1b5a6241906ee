"""Deleting photos: all that Kith has learnt from them goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.detection.domain.model import DetectionDeps
from services.detection.repository.found import delete_faces
from services.detection.repository.removing import delete_photos, lock_faces_of, lock_photos_to_delete
from shared.db.engine import Transaction
from shared.db.outbox import PointKind, queue_points
from shared.db.people_queue import queue_people
from shared.errors import FieldViolation, InvalidRequest, NotFound

MAX_BATCH = 500


@dataclass(frozen=True, slots=True)
class AssetsDeleted:
    """How many rows went."""

    assets: int
    faces: int


def check_ids(asset_ids: Sequence[str]) -> None:
    """Raise :class:`InvalidRequest` unless there are 1..500 ids, each once."""
    if not 1 <= len(asset_ids) <= MAX_BATCH:
        raise InvalidRequest(f"asset_ids must hold 1..{MAX_BATCH} ids", field="asset_ids")
    first: dict[str, int] = {}
    for index, asset_id in enumerate(asset_ids):
        earlier = first.setdefault(asset_id, index)
        if earlier != index:
            field = f"asset_ids[{index}]"
            raise InvalidRequest(f"{field}: '{asset_id}' is asset_ids[{earlier}] already", field=field)


async def delete_assets(
    tx: Transaction, deps: DetectionDeps, library_id: str, asset_ids: Sequence[str]
) -> AssetsDeleted:
    """Delete photos with their faces, embeddings, assignments, suggestions and memberships; their points are tombstoned.

    The ids were checked with :func:`check_ids`. People who lose a face, a prototype or their cover by it are brought up to
    date by the persons service, soon after. A fixed number of statements, whatever the number of photos and faces. Raises
    :class:`NotFound` naming every id that is not registered; then nothing is deleted.
    """
    present = await lock_photos_to_delete(tx, library_id, asset_ids)
    missing = [(index, asset_id) for index, asset_id in enumerate(asset_ids) if asset_id not in present]
    if missing:
        violations = [FieldViolation(f"asset_ids[{index}]", f"asset '{name}' not found") for index, name in missing]
        raise NotFound("asset", missing[0][1], violations=violations)
    face_ids = await lock_faces_of(tx, library_id, asset_ids)
    gone = await delete_faces(tx, face_ids)
    await delete_photos(tx, library_id, asset_ids)
    await queue_people(tx, deps.clock, library_id, gone.person_ids)
    await queue_points(tx, deps.clock, PointKind.FACE, library_id, gone.points)
    return AssetsDeleted(len(asset_ids), len(face_ids))
