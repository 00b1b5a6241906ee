"""Storing what became of some photos of a session, in the step that also counts it as done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from services.detection.domain.activating import hold_model
from services.detection.domain.matching import plan_storing
from services.detection.domain.model import DetectionDeps, PhotoFailed, PhotoFound, PhotoLook
from services.detection.domain.refreshing import queue_people_on
from services.detection.repository.assets import lock_captured_times
from services.detection.repository.found import (
    delete_faces,
    insert_faces,
    lock_known_faces,
    update_faces,
    write_embeddings,
    write_photos,
)
from services.detection.repository.session_photos import write_outcomes
from services.detection.repository.sessions import add_counts
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.errors import Reason
from shared.jobs.model import ItemFailure, Progress


async def store_looks(
    tx: Transaction,
    deps: DetectionDeps,
    library_id: str,
    session_id: UUID,
    model_version: str,
    looks: Sequence[PhotoLook],
) -> Progress:
    """Store what became of some photos of a session; answers what that adds to its job's progress.

    A fixed number of statements, whatever the number of photos and faces. Photos that were deleted meanwhile fail with
    RESOURCE_NOT_FOUND. Raises :class:`Contention` if the library's model was changed since its photos were looked at.
    """
    present = await lock_captured_times(tx, library_id, [look.asset_id for look in looks])
    looks = [look if look.asset_id in present else _lost(look.asset_id) for look in looks]
    found = [look for look in looks if isinstance(look, PhotoFound)]
    failed = [look for look in looks if isinstance(look, PhotoFailed)]
    if found:
        await hold_model(tx, library_id, model_version)
    known = await lock_known_faces(tx, library_id, [photo.asset_id for photo in found])
    plan = plan_storing(found, known, deps.ids, deps.settings.redetect_iou)
    await insert_faces(tx, deps.clock, library_id, plan.added)
    await update_faces(tx, deps.clock, plan.updated)
    await write_embeddings(tx, library_id, model_version, [*plan.added, *plan.updated])
    gone = await delete_faces(tx, plan.deleted)
    await write_photos(tx, deps.clock, library_id, looks, plan.face_counts)
    await _follow_times(tx, deps, library_id, present, {face.asset_id for face in known})
    outcomes = await write_outcomes(tx, session_id, looks)
    await add_counts(
        tx,
        session_id,
        outcomes,
        faces_added=len(plan.added),
        faces_kept=plan.kept,
        faces_gone=plan.unseen,
    )
    staying = [*plan.remaining, *(face.face_id for face in plan.added)]
    await queue_faces(tx, deps.clock, library_id, staying, gone.points)
    return Progress(
        done=len(looks),
        failed=len(failed),
        phase="detect",
        failures=[ItemFailure(photo.asset_id, photo.reason, photo.message) for photo in failed],
    )


async def _follow_times(
    tx: Transaction,
    deps: DetectionDeps,
    library_id: str,
    before: Mapping[str, datetime | None],
    asset_ids: Collection[str],
) -> None:
    """Have people brought up to date who are on those of these photos that turn out to be of another time."""
    if not asset_ids:
        return
    now = await lock_captured_times(tx, library_id, sorted(asset_ids))
    moved = [asset_id for asset_id, taken in now.items() if taken != before[asset_id]]
    await queue_people_on(tx, deps, library_id, moved)


def _lost(asset_id: str) -> PhotoFailed:
    return PhotoFailed(
        asset_id, Reason.RESOURCE_NOT_FOUND.value, f"asset '{asset_id}' was deleted while the session ran"
    )
