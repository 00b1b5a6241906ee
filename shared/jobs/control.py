"""Pause, resume and cancel. They only change the row: the worker notices at its next checkpoint."""

from __future__ import annotations

from uuid import UUID

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_shared import jobs
from shared.errors import EtagMismatch, PreconditionFailed, Reason
from shared.jobs.model import Job, JobState
from shared.jobs.repository import announce_slices, get_job, update_job


async def pause_job(tx: Transaction, library_id: str, job_id: UUID, etag: str) -> Job:
    """Hold a job at its next item; pausing a paused job changes nothing. Raises JOB_STATE if it has ended."""
    job = await _lock(tx, library_id, job_id, etag)
    if job.state is JobState.PAUSED:
        return job
    _refuse_final(job, "paused")
    await update_job(tx, job_id, state=JobState.PAUSED.value)
    return await get_job(tx, library_id, job_id)


async def resume_job(tx: Transaction, library_id: str, job_id: UUID, etag: str) -> Job:
    """Let a paused job go on; resuming a running one changes nothing. Raises JOB_STATE if it has ended."""
    job = await _lock(tx, library_id, job_id, etag)
    if job.state in {JobState.QUEUED, JobState.RUNNING}:
        return job
    _refuse_final(job, "resumed")
    await update_job(tx, job_id, state=JobState.QUEUED.value, rate_from=None, rate_from_done=jobs.c.done)
    await announce_slices(tx)
    return await get_job(tx, library_id, job_id)


async def cancel_job(tx: Transaction, library_id: str, job_id: UUID, etag: str, clock: Clock) -> Job:
    """End a job at its next item; cancelling a cancelled job changes nothing. Raises JOB_STATE if it ended otherwise."""
    job = await _lock(tx, library_id, job_id, etag)
    if job.state is JobState.CANCELLED:
        return job
    _refuse_final(job, "cancelled")
    await update_job(tx, job_id, state=JobState.CANCELLED.value, ended_at=clock.now())
    return await get_job(tx, library_id, job_id)


async def _lock(tx: Transaction, library_id: str, job_id: UUID, etag: str) -> Job:
    job = await get_job(tx, library_id, job_id, lock=True)
    if etag and etag != job.etag:
        raise EtagMismatch("job", str(job_id), job.etag)
    return job


def _refuse_final(job: Job, verb: str) -> None:
    if job.state.final:
        raise PreconditionFailed(
            f"job '{job.job_id}' has ended ({job.state.value}) and cannot be {verb}",
            reason=Reason.JOB_STATE,
            metadata={"job_id": str(job.job_id), "state": job.state.value},
        )
