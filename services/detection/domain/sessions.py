"""Detection sessions: a fixed set of photos, and the job that looks at them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from uuid import UUID

from services.detection.domain.model import (
    AssetDetection,
    DetectionDeps,
    OptionOverrides,
    PhotoOutcome,
    Session,
    TimeSpan,
)
from services.detection.repository.assets import find_missing_asset
from services.detection.repository.session_photos import count_outcomes, fix_listed_photos, fix_matching_photos
from services.detection.repository.sessions import get_job_id, get_session, insert_session, set_photo_count
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import InvalidRequest, NotFound
from shared.jobs.control import cancel_job, pause_job, resume_job
from shared.jobs.model import Job, NewJob, Progress
from shared.jobs.repository import add_progress, create_job

JOB_KIND = "detection.detect_assets"


@dataclass(frozen=True, slots=True)
class AssetFilter:
    """Which photos of a library to take; ``detections`` empty = whatever became of them before."""

    detections: tuple[AssetDetection, ...] = ()
    captured: TimeSpan = field(default_factory=TimeSpan)
    id_prefix: str = ""


@dataclass(frozen=True, slots=True)
class CreateSession:
    """A session over photos named by id, or those that pass a filter."""

    library_id: str
    photos: Sequence[str] | AssetFilter
    redetect: bool
    options: OptionOverrides


async def create_session(tx: Transaction, deps: DetectionDeps, command: CreateSession, caller: Caller) -> Session:
    """Fix the photos and start the job.

    Photos that were detected before are SKIPPED at once unless ``redetect``; those that failed are tried again. Raises
    :class:`NotFound` for the first id that is not registered, :class:`InvalidRequest` if there is no photo at all.
    """
    library_id = command.library_id
    session_id, job_id = deps.ids.new_uuid(), deps.ids.new_uuid()
    size = deps.settings.session_slice
    options = {name: value for name, value in asdict(command.options).items() if value is not None}
    await insert_session(tx, deps.clock, library_id, session_id, job_id, command.redetect, options)
    if isinstance(command.photos, AssetFilter):
        await fix_matching_photos(
            tx,
            library_id,
            session_id,
            [state.value for state in command.photos.detections],
            command.photos.captured,
            command.photos.id_prefix,
            redetect=command.redetect,
            slice_size=size,
        )
    else:
        missing = await find_missing_asset(tx, library_id, command.photos)
        if missing is not None:
            raise NotFound("asset", missing)
        await fix_listed_photos(tx, library_id, session_id, command.photos, redetect=command.redetect, slice_size=size)
    outcomes = (await count_outcomes(tx, [session_id])).get(session_id, {})
    photos = sum(outcomes.values())
    if not photos:
        raise InvalidRequest("the session would hold no photo", field="photos")
    await set_photo_count(tx, session_id, photos)
    slices = max(1, -(-outcomes.get(PhotoOutcome.PENDING, 0) // size))
    job = NewJob(
        library_id=library_id,
        kind=JOB_KIND,
        unit="photo",
        slices=[{} for _ in range(slices)],
        created_by=caller.subject,
        spec={"session_id": str(session_id), "options": options},
        total=photos,
        job_id=job_id,
    )
    await create_job(tx, job, deps.ids, deps.clock)
    skipped = outcomes.get(PhotoOutcome.SKIPPED, 0)
    if skipped:
        await add_progress(tx, job_id, Progress(done=skipped, skipped=skipped))
    return await get_session(tx, library_id, session_id)


async def pause_session(tx: Transaction, library_id: str, session_id: UUID) -> Session:
    """Hold a session at its next batch of photos. Raises :class:`NotFound`, or JOB_STATE if it has ended."""
    return await _steer(tx, library_id, session_id, lambda job_id: pause_job(tx, library_id, job_id, ""))


async def resume_session(tx: Transaction, library_id: str, session_id: UUID) -> Session:
    """Go on with a paused session. Raises :class:`NotFound`, or JOB_STATE if it has ended."""
    return await _steer(tx, library_id, session_id, lambda job_id: resume_job(tx, library_id, job_id, ""))


async def cancel_session(tx: Transaction, deps: DetectionDeps, library_id: str, session_id: UUID) -> Session:
    """End a session; what was found stays. Raises :class:`NotFound`, or JOB_STATE if it has ended otherwise."""
    return await _steer(tx, library_id, session_id, lambda job_id: cancel_job(tx, library_id, job_id, "", deps.clock))


async def _steer(
    tx: Transaction, library_id: str, session_id: UUID, change: Callable[[UUID], Awaitable[Job]]
) -> Session:
    await change(await get_job_id(tx, library_id, session_id))
    return await get_session(tx, library_id, session_id)
