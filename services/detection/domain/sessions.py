"""Detection sessions: a fixed set of photos, and the job that looks at them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from uuid import UUID

from services.detection.domain.model import (
    AssetDetection,
    DetectionDeps,
    NewSession,
    OptionOverrides,
    PhotoOutcome,
    Session,
    TimeSpan,
)
from services.detection.repository.assets import find_missing_asset
from services.detection.repository.session_photos import (
    count_outcomes,
    count_slices,
    fix_failed_photos,
    fix_listed_photos,
    fix_matching_photos,
)
from services.detection.repository.sessions import get_job_id, get_session, insert_session, set_photo_counts
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import InvalidRequest, NotFound, PreconditionFailed, Reason
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
    library_id, redetect = command.library_id, command.redetect
    size = deps.settings.session_slice
    options = {name: value for name, value in asdict(command.options).items() if value is not None}
    new = NewSession(deps.ids.new_uuid(), library_id, deps.ids.new_uuid(), redetect, options)
    await insert_session(tx, deps.clock, new)
    if isinstance(command.photos, AssetFilter):
        await fix_matching_photos(
            tx,
            library_id,
            new.session_id,
            [state.value for state in command.photos.detections],
            command.photos.captured,
            command.photos.id_prefix,
            redetect=redetect,
            slice_size=size,
        )
    else:
        missing = await find_missing_asset(tx, library_id, command.photos)
        if missing is not None:
            raise NotFound("asset", missing)
        await fix_listed_photos(tx, library_id, new.session_id, command.photos, redetect=redetect, slice_size=size)
    outcomes = await count_outcomes(tx, new.session_id)
    if not outcomes:
        raise InvalidRequest("the session would hold no photo", field="photos")
    return await _start(tx, deps, new, outcomes, caller)


async def retry_failed(
    tx: Transaction, deps: DetectionDeps, library_id: str, session_id: UUID, caller: Caller
) -> Session:
    """Start a session, with the same options, over the photos that failed in one that has ended.

    Photos that another session has detected since are SKIPPED; those whose asset is gone are left out. Raises
    :class:`NotFound`, JOB_STATE if the session has not ended, :class:`InvalidRequest` if that leaves no photo.
    """
    old = await get_session(tx, library_id, session_id)
    if not old.job.state.final:
        raise PreconditionFailed(
            f"detection session '{session_id}' has not ended ({old.job.state.value}); its failed photos may still change",
            reason=Reason.JOB_STATE,
            metadata={"job_id": str(old.job.job_id), "state": old.job.state.value},
        )
    new = NewSession(
        deps.ids.new_uuid(), library_id, deps.ids.new_uuid(), old.redetect, old.options, retry_of=session_id
    )
    await insert_session(tx, deps.clock, new)
    await fix_failed_photos(tx, library_id, new.session_id, session_id, slice_size=deps.settings.session_slice)
    outcomes = await count_outcomes(tx, new.session_id)
    if not outcomes:
        raise InvalidRequest(
            f"no photo failed in detection session '{session_id}' that is still registered", field="session_id"
        )
    return await _start(tx, deps, new, outcomes, caller)


async def recount_session(tx: Transaction, session_id: UUID) -> Mapping[PhotoOutcome, int]:
    """Count a session's photos by outcome once more, from the photos themselves.

    Each step adds to the counts, but those of the version before 0002 did not.
    """
    outcomes = await count_outcomes(tx, session_id)
    await set_photo_counts(tx, session_id, outcomes)
    return outcomes


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


async def _start(
    tx: Transaction, deps: DetectionDeps, new: NewSession, outcomes: Mapping[PhotoOutcome, int], caller: Caller
) -> Session:
    """Create the job of a session whose photos are fixed."""
    await set_photo_counts(tx, new.session_id, outcomes)
    slices = count_slices(outcomes.get(PhotoOutcome.PENDING, 0), deps.settings.session_slice)
    job = NewJob(
        library_id=new.library_id,
        kind=JOB_KIND,
        unit="photo",
        slices=[{} for _ in range(slices)],
        created_by=caller.subject,
        spec={"session_id": str(new.session_id), "options": dict(new.options)},
        total=sum(outcomes.values()),
        job_id=new.job_id,
    )
    await create_job(tx, job, deps.ids, deps.clock)
    skipped = outcomes.get(PhotoOutcome.SKIPPED, 0)
    if skipped:
        await add_progress(tx, new.job_id, Progress(done=skipped, skipped=skipped))
    return await get_session(tx, new.library_id, new.session_id)
