"""From what was found on photos to what is stored: new faces, faces that are known already, faces that are gone.

A face found again keeps its row, and with it all work people did on it. "Again" is decided by the overlap of the boxes,
never by equal numbers: another model version or another decoder moves a box by a pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from services.detection.domain.model import (
    DetectionDeps,
    FaceOrigin,
    FaceState,
    FoundFace,
    PhotoFailed,
    PhotoFound,
    PhotoLook,
)
from services.detection.repository.found import (
    delete_faces,
    insert_faces,
    lock_known_faces,
    lock_photos,
    update_faces,
    write_embeddings,
    write_photos,
)
from services.detection.repository.session_photos import write_outcomes
from services.detection.repository.sessions import add_face_counts
from shared.db.engine import Transaction
from shared.db.outbox import PointKind, queue_faces, queue_points
from shared.faces.boxes import Box, match_boxes
from shared.ids import IdFactory
from shared.jobs.model import ItemFailure, Progress


@dataclass(frozen=True, slots=True)
class KnownFace:
    """A stored face. ``claimed``: somebody assigned it, or said whose it is not."""

    face_id: UUID
    asset_id: str
    box: Box
    state: FaceState
    origin: FaceOrigin
    claimed: bool

    @property
    def may_go(self) -> bool:
        """Whether nothing but a detector ever had to do with it."""
        return self.origin is FaceOrigin.DETECTED and self.state is FaceState.ACTIVE and not self.claimed


@dataclass(frozen=True, slots=True)
class PlacedFace:
    """A found face and the row it belongs to."""

    face_id: UUID
    asset_id: str
    found: FoundFace


@dataclass(slots=True)
class StorePlan:
    """What to write for some photos.

    ``kept`` counts stored faces found again, ``unseen`` those that were not; of these, ``deleted`` are removed.
    ``face_counts``: faces per photo afterwards. ``remaining``: stored faces that stay.
    """

    added: list[PlacedFace] = field(default_factory=list)
    updated: list[PlacedFace] = field(default_factory=list)
    deleted: list[UUID] = field(default_factory=list)
    remaining: list[UUID] = field(default_factory=list)
    face_counts: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    unseen: int = 0


def plan_storing(
    photos: Sequence[PhotoFound], known: Iterable[KnownFace], ids: IdFactory, min_iou: float
) -> StorePlan:
    """Match found faces to stored ones, photo by photo, at an overlap of at least ``min_iou`` (IoU).

    A box drawn by hand is matched, so that its face is not added twice, but never moved.
    """
    stored: dict[str, list[KnownFace]] = defaultdict(list)
    for face in known:
        stored[face.asset_id].append(face)
    plan = StorePlan()
    for photo in photos:
        _plan_photo(plan, photo, stored[photo.asset_id], ids, min_iou)
    return plan


def _plan_photo(
    plan: StorePlan, photo: PhotoFound, stored: Sequence[KnownFace], ids: IdFactory, min_iou: float
) -> None:
    pairs = match_boxes(_rows(face.box for face in photo.faces), _rows(face.box for face in stored), min_iou)
    matches = {found: stored[row] for found, row, _ in pairs}
    for index, found in enumerate(photo.faces):
        match = matches.get(index)
        if match is None:
            plan.added.append(PlacedFace(ids.new_uuid(), photo.asset_id, found))
        elif match.origin is not FaceOrigin.MANUAL:
            plan.updated.append(PlacedFace(match.face_id, photo.asset_id, found))
    seen = {face.face_id for face in matches.values()}
    gone = [face.face_id for face in stored if face.face_id not in seen and face.may_go]
    plan.kept += len(seen)
    plan.unseen += len(stored) - len(seen)
    plan.deleted += gone
    plan.remaining += [face.face_id for face in stored if face.face_id not in gone]
    plan.face_counts[photo.asset_id] = len(photo.faces) - len(seen) + len(stored) - len(gone)


def _rows(boxes: Iterable[Box]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([(box.x, box.y, box.width, box.height) for box in boxes], np.float64).reshape(-1, 4)


async def store_looks(
    tx: Transaction, deps: DetectionDeps, library_id: str, session_id: UUID, looks: Sequence[PhotoLook]
) -> Progress:
    """Store what became of some photos of a session; answers what that adds to its job's progress.

    A fixed number of statements, whatever the number of photos and faces. Photos that were deleted meanwhile fail with
    RESOURCE_NOT_FOUND.
    """
    present = await lock_photos(tx, library_id, [look.asset_id for look in looks])
    looks = [look if look.asset_id in present else _lost(look.asset_id) for look in looks]
    found = [look for look in looks if isinstance(look, PhotoFound)]
    failed = [look for look in looks if isinstance(look, PhotoFailed)]
    known = await lock_known_faces(tx, library_id, [photo.asset_id for photo in found])
    plan = plan_storing(found, known, deps.ids, deps.settings.redetect_iou)
    versions = {photo.asset_id: photo.model_version for photo in found}
    await insert_faces(tx, deps.clock, library_id, plan.added)
    await update_faces(tx, deps.clock, plan.updated)
    await write_embeddings(tx, library_id, [*plan.added, *plan.updated], versions)
    points = await delete_faces(tx, plan.deleted)
    await write_photos(tx, deps.clock, library_id, looks, plan.face_counts)
    await write_outcomes(tx, session_id, looks)
    await add_face_counts(tx, session_id, len(plan.added), plan.kept, plan.unseen)
    await queue_points(tx, deps.clock, PointKind.FACE, library_id, points)
    await queue_faces(tx, deps.clock, library_id, [*plan.remaining, *(face.face_id for face in plan.added)])
    return Progress(
        done=len(looks),
        failed=len(failed),
        phase="detect",
        failures=[ItemFailure(photo.asset_id, photo.reason, photo.message) for photo in failed],
    )


def _lost(asset_id: str) -> PhotoFailed:
    return PhotoFailed(asset_id, "RESOURCE_NOT_FOUND", f"asset '{asset_id}' was deleted while the session ran")
