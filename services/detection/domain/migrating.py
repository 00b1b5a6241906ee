"""From one model to the next: start, embed every face again, cut over, roll back.

Whoever decides which model is the active one holds the library's migration lock, and changes it while holding the rows of
``models`` that those who store faces hold too (:func:`hold_model`). So no face is stored under the old model any more once
the faces were counted that the new one has no vector of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.detection.domain.activating import refuse_changed_model
from services.detection.domain.migration import (
    Coverage,
    FaceVector,
    Migration,
    ModelState,
    PhotoByFace,
    PhotoMeasure,
    PhotoMeasured,
)
from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.domain.ports import ModelFleets, VectorCollections
from services.detection.repository.migrations import (
    find_latest_cut_over,
    find_migration,
    get_migration,
    lock_migrations,
    mark_cut_over,
    mark_rolled_back,
    write_migration,
)
from services.detection.repository.models import (
    add_shadow_model,
    change_active_version,
    find_active_version,
    lock_active_version,
)
from services.detection.repository.unembedded import add_vectors, count_coverage, divide_unembedded, hold_faces
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.outbox import PointKind, queue_points
from shared.errors import EtagMismatch, PreconditionFailed, Reason
from shared.jobs.model import ItemFailure, Job, NewJob, Progress
from shared.jobs.repository import create_job

JOB_KIND: Final = "detection.migrate_model"
MAX_SLICES: Final = 64


@dataclass(frozen=True, slots=True)
class MoveLibrary:
    """A migration to cut over or to roll back, as the caller has seen it."""

    library_id: str
    migration_id: UUID
    etag: str
    allow_missing: bool


async def find_next_model(
    fleets: ModelFleets, collections: VectorCollections, library_id: str, model_version: str
) -> PackDescription:
    """The model to migrate to: one that a detection service runs and that has its collections.

    Raises :class:`PreconditionFailed` with MODEL_MISMATCH otherwise, :class:`Unavailable` if that cannot be told now.
    """
    pack = await fleets.describe_model(library_id, model_version)
    await collections.check(pack.model_version, pack.dimension)
    return pack


async def start_migration(
    tx: Transaction, deps: DetectionDeps, library_id: str, pack: PackDescription, caller: Caller
) -> Migration:
    """Embed every face that has no vector of ``pack`` yet, beside the vectors in use, as a job.

    A migration whose job has not ended is answered as it is. The active model can be asked for too if a migration has made it
    that: its job embeds what was allowed to be missing. Raises :class:`PreconditionFailed` with MODEL_MISMATCH for another
    active model, and for a library that has none.
    """
    await lock_migrations(tx, library_id)
    active = await find_active_version(tx, library_id)
    if active is None:
        raise _wrong_model("the library has no model yet: its first detection decides which", "", pack.model_version)
    if active == pack.model_version:
        known = await find_latest_cut_over(tx, library_id, active)
        if known is None:
            raise _wrong_model(f"the library's model is '{active}' already", active, pack.model_version)
    else:
        known = await find_migration(tx, library_id, active, pack.model_version)
    if known is not None and not known.job.state.final:
        return known
    await add_shadow_model(tx, deps.clock, library_id, pack)
    job = await _create_job(tx, deps, library_id, pack.model_version, caller)
    from_version = active if known is None else known.from_version
    return await write_migration(tx, deps.clock, deps.ids, library_id, from_version, pack.model_version, job)


async def cut_over(tx: Transaction, deps: DetectionDeps, command: MoveLibrary) -> Migration:
    """Make the new model the library's active one.

    Raises :class:`NotFound`, :class:`EtagMismatch`, and :class:`PreconditionFailed`: MODEL_MISMATCH unless the active model is
    the one the migration starts from, MIGRATION_INCOMPLETE while faces have no vector and that is not allowed.
    """
    migration = await _lock_migration(tx, command)
    await _change_model(tx, command, migration.from_version, ModelState.RETIRED, migration.to_version)
    await mark_cut_over(tx, deps.clock, migration)
    return await get_migration(tx, command.library_id, command.migration_id)


async def roll_back(tx: Transaction, command: MoveLibrary) -> Migration:
    """Make the model before the active one again; raises as :func:`cut_over`, the other way round.

    What was not cut over cannot be rolled back. Faces found since the cut-over have no vector of the old model.
    """
    migration = await _lock_migration(tx, command)
    if migration.cut_over_at is None:
        active = await find_active_version(tx, command.library_id) or ""
        raise _wrong_model(f"migration '{migration.migration_id}' is not cut over", migration.to_version, active)
    await _change_model(tx, command, migration.to_version, ModelState.SHADOW, migration.from_version)
    await mark_rolled_back(tx, migration)
    return await get_migration(tx, command.library_id, command.migration_id)


async def read_coverage(tx: Transaction, migration: Migration) -> Coverage:
    """How far a migration is, in faces of the library."""
    return await count_coverage(tx, migration.library_id, migration.to_version)


async def store_measures(
    tx: Transaction, deps: DetectionDeps, library_id: str, model_version: str, measures: Sequence[PhotoMeasure]
) -> Progress:
    """Store the vectors that some photos' faces were given; answers what that adds to the job's progress, in faces.

    A fixed number of statements. Faces that went away meanwhile are skipped; those whose photo cannot be read, or that the
    detector gave no vector, fail under their face id. Raises :class:`Contention` for vectors of another model: the servers
    were changed, and have to be chosen again.
    """
    vectors: dict[UUID, FaceVector] = {}
    failures: list[ItemFailure] = []
    for measure in measures:
        found, failed = _sort_faces(measure, model_version)
        vectors |= found
        failures += failed
    held = await hold_faces(tx, [*vectors, *(UUID(failure.item_id) for failure in failures)])
    stored = {face_id: vector for face_id, vector in vectors.items() if face_id in held}
    failures = [failure for failure in failures if UUID(failure.item_id) in held]
    await add_vectors(tx, library_id, model_version, stored)
    points = [(face_id, model_version) for face_id in stored]
    await queue_points(tx, deps.clock, PointKind.FACE, library_id, points)
    asked = sum(len(measure.photo.faces) for measure in measures)
    return Progress(
        done=asked,
        failed=len(failures),
        skipped=asked - len(stored) - len(failures),
        phase="embed",
        failures=failures,
    )


def _sort_faces(measure: PhotoMeasure, model_version: str) -> tuple[dict[UUID, FaceVector], list[ItemFailure]]:
    """Which of a photo's faces have a vector now, and why the others have not."""
    if isinstance(measure, PhotoByFace):
        sorted_ = [_sort_faces(answer, model_version) for answer in measure.answers]
        vectors = {face_id: vector for found, _ in sorted_ for face_id, vector in found.items()}
        return vectors, [failure for _, failed in sorted_ for failure in failed]
    asked = [face.face_id for face in measure.photo.faces]
    if not isinstance(measure, PhotoMeasured):
        return {}, [ItemFailure(str(face_id), measure.reason, measure.message) for face_id in asked]
    refuse_changed_model(model_version, measure.model_version)
    without = "the detection service gave no embedding of this face"
    return (
        {face_id: measure.vectors[face_id] for face_id in asked if face_id in measure.vectors},
        [
            ItemFailure(str(face_id), Reason.INTERNAL_ERROR.value, without)
            for face_id in asked
            if face_id not in measure.vectors
        ],
    )


async def _create_job(tx: Transaction, deps: DetectionDeps, library_id: str, model_version: str, caller: Caller) -> Job:
    ranges = await divide_unembedded(tx, library_id, model_version, deps.settings.session_slice, MAX_SLICES)
    # Without a face to embed, one slice is there to make the report.
    slices = [{"first": part.first, "last": part.last} for part in ranges] or [{}]
    job = NewJob(
        library_id=library_id,
        kind=JOB_KIND,
        unit="face",
        slices=slices,
        created_by=caller.subject,
        spec={"model_version": model_version},
        total=sum(part.faces for part in ranges),
    )
    return await create_job(tx, job, deps.ids, deps.clock)


async def _lock_migration(tx: Transaction, command: MoveLibrary) -> Migration:
    await lock_migrations(tx, command.library_id)
    migration = await get_migration(tx, command.library_id, command.migration_id)
    if command.etag != migration.etag:
        raise EtagMismatch("model migration", str(migration.migration_id), migration.etag)
    return migration


async def _change_model(tx: Transaction, command: MoveLibrary, leaving: str, left_as: ModelState, to: str) -> None:
    library_id = command.library_id
    active = await lock_active_version(tx, library_id)
    if active != leaving:
        raise _wrong_model(f"the library's model is '{active}', not '{leaving}'", leaving, active or "")
    # Only now: whoever was storing faces under the old model has ended by here, and who comes after is refused.
    missing = (await count_coverage(tx, library_id, to)).missing
    if missing and not command.allow_missing:
        raise PreconditionFailed(
            f"{missing} faces have no vector of '{to}' and would be found by no search",
            reason=Reason.MIGRATION_INCOMPLETE,
            metadata={"missing": str(missing)},
        )
    await change_active_version(tx, library_id, leaving, left_as, to)


def _wrong_model(message: str, expected: str, actual: str) -> PreconditionFailed:
    return PreconditionFailed(message, reason=Reason.MODEL_MISMATCH, metadata={"expected": expected, "actual": actual})
