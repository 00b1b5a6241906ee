"""SQL of jobs, slices and failures. Every change of a job raises its revision and wakes its watchers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, or_, select, update
from sqlalchemy.engine import Row

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.notify import Channel, notify
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_shared import job_failures, job_slices, jobs
from shared.errors import NotFound
from shared.ids import IdFactory
from shared.jobs.model import (
    FINAL_STATES,
    LIVE_STATES,
    ItemFailure,
    Job,
    JobState,
    Json,
    NewJob,
    Progress,
    Slice,
    SliceTurn,
)

SHOWN_FAILURES = 100


async def create_job(tx: Transaction, new: NewJob, ids: IdFactory, clock: Clock) -> Job:
    """Store a job with its slices; workers hear of it on commit."""
    if not new.slices:
        raise ValueError("a job needs at least one slice")
    job_id = new.job_id or ids.new_uuid()
    row = {
        "job_id": job_id,
        "library_id": new.library_id,
        "kind": new.kind,
        "spec": new.spec,
        "unit": new.unit,
        "total": new.total,
        "created_by": new.created_by,
        "created_at": clock.now(),
    }
    await tx.execute(insert(jobs), row)
    slices = [{"job_id": job_id, "ordinal": ordinal, "spec": spec} for ordinal, spec in enumerate(new.slices)]
    await tx.execute(insert(job_slices), slices)
    await announce_slices(tx)
    return await get_job(tx, new.library_id, job_id)


async def get_job(tx: Transaction, library_id: str, job_id: UUID, *, lock: bool = False) -> Job:
    """One job with its first failures; raises :class:`NotFound`."""
    statement = select(jobs).where(jobs.c.job_id == job_id, jobs.c.library_id == library_id)
    row = await tx.one_or_none(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFound("job", str(job_id))
    return (await with_failures(tx, [_job(row)]))[0]


async def get_jobs(tx: Transaction, library_id: str, job_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """Several jobs by id, without those that are not in this library; three statements at most."""
    rows = await tx.rows(select(jobs).where(jobs.c.library_id == library_id, jobs.c.job_id == func.any(list(job_ids))))
    return {job.job_id: job for job in await with_failures(tx, [_job(row) for row in rows])}


async def find_unended(tx: Transaction, job_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the jobs, of any library, that are there and have not ended."""
    final = [state.value for state in FINAL_STATES]
    rows = await tx.rows(
        select(jobs.c.job_id).where(jobs.c.job_id == func.any(list(job_ids)), jobs.c.state.not_in(final))
    )
    return {row.job_id for row in rows}


async def list_jobs(
    tx: Transaction, library_id: str, request: PageRequest, kinds: Sequence[str], states: Sequence[JobState]
) -> Page[Job]:
    """Jobs of a library, newest first."""
    statement = select(jobs).where(jobs.c.library_id == library_id)
    if kinds:
        statement = statement.where(jobs.c.kind.in_(kinds))
    if states:
        statement = statement.where(jobs.c.state.in_([state.value for state in states]))
    rows = await tx.rows(keyset(statement, request, [SortKey(jobs.c.job_id, descending=True)]))
    page = make_page(rows, request, _job, lambda row: [row.job_id])
    return Page(await with_failures(tx, page.items), page.next_token)


async def with_failures(tx: Transaction, found: Sequence[Job]) -> list[Job]:
    """The same jobs with failure counts and first failures, in two statements whatever their number."""
    failing = [job.job_id for job in found if job.failed]
    if not failing:
        return list(found)
    counts = await tx.rows(
        select(job_failures.c.job_id, func.count().label("failures"))
        .where(job_failures.c.job_id.in_(failing))
        .group_by(job_failures.c.job_id)
    )
    position = func.row_number().over(partition_by=job_failures.c.job_id, order_by=job_failures.c.sequence)
    ranked = select(job_failures, position.label("position")).where(job_failures.c.job_id.in_(failing)).subquery()
    rows = await tx.rows(
        select(ranked).where(ranked.c.position <= SHOWN_FAILURES).order_by(ranked.c.job_id, ranked.c.sequence)
    )
    number = {row.job_id: row.failures for row in counts}
    named: dict[UUID, list[ItemFailure]] = {job_id: [] for job_id in failing}
    for row in rows:
        named[row.job_id].append(ItemFailure(row.item_id, row.reason, row.message))
    return [
        replace(job, failure_count=number.get(job.job_id, 0), failures=tuple(named.get(job.job_id, ())))
        for job in found
    ]


async def update_job(tx: Transaction, job_id: UUID, **values: Any) -> None:
    """Change a job's row, raise its revision (and its version if the state changes), wake its watchers."""
    if "state" in values:
        values["version"] = jobs.c.version + 1
    await tx.execute(update(jobs).where(jobs.c.job_id == job_id).values(revision=jobs.c.revision + 1, **values))
    await notify(tx, Channel.JOBS, str(job_id))


async def add_progress(tx: Transaction, job_id: UUID, progress: Progress) -> None:
    """Add the counts of a checkpoint to a job."""
    values: dict[str, Any] = {
        "done": jobs.c.done + progress.done,
        "failed": jobs.c.failed + progress.failed,
        "skipped": jobs.c.skipped + progress.skipped,
    }
    if progress.phase is not None:
        values["phase"] = progress.phase
    if progress.total is not None:
        values["total"] = progress.total
    await update_job(tx, job_id, **values)
    if progress.failures:
        await tx.execute(
            insert(job_failures),
            [
                {"job_id": job_id, "item_id": item.item_id, "reason": item.reason, "message": item.message}
                for item in progress.failures
            ],
        )


async def lock_state(tx: Transaction, job_id: UUID) -> JobState:
    """The job's state, locked until the transaction ends."""
    state = await tx.scalar(select(jobs.c.state).where(jobs.c.job_id == job_id).with_for_update())
    return JobState(state)


async def find_ready_slices(tx: Transaction, clock: Clock, kinds: Sequence[str], limit: int) -> list[SliceTurn]:
    """Open slices of live jobs that nobody holds and that are due, oldest job first."""
    rows = await tx.rows(
        select(job_slices.c.job_id, job_slices.c.ordinal, job_slices.c.epoch)
        .join(jobs, jobs.c.job_id == job_slices.c.job_id)
        .where(jobs.c.kind.in_(kinds), jobs.c.state.in_(LIVE_STATES), *_free(clock.now()))
        .order_by(job_slices.c.job_id, job_slices.c.ordinal)
        .limit(limit)
    )
    return [SliceTurn(row.job_id, row.ordinal, row.epoch) for row in rows]


async def claim_slice(
    tx: Transaction, job_id: UUID, ordinal: int, token: UUID, lease: timedelta, clock: Clock
) -> Slice | None:
    """Take a slice for ``lease``; None if another holds it, or the job is paused or over."""
    now = clock.now()
    # The job first, then its slice: the order in which every other path locks them.
    job = await tx.one_or_none(select(jobs).where(jobs.c.job_id == job_id).with_for_update())
    if job is None or JobState(job.state) not in LIVE_STATES:
        return None
    row = await tx.one_or_none(
        update(job_slices)
        .where(job_slices.c.job_id == job_id, job_slices.c.ordinal == ordinal, *_free(now))
        .values(
            lease_token=token, lease_until=now + lease, attempts=job_slices.c.attempts + 1, epoch=job_slices.c.epoch + 1
        )
        .returning(*job_slices.c)
    )
    if row is None:
        return None
    if JobState(job.state) is JobState.QUEUED:
        await update_job(
            tx,
            job_id,
            state=JobState.RUNNING.value,
            started_at=func.coalesce(jobs.c.started_at, now),
            rate_from=now,
            rate_from_done=jobs.c.done,
        )
    return Slice(
        job_id=job_id,
        ordinal=ordinal,
        library_id=job.library_id,
        kind=job.kind,
        job_spec=job.spec,
        spec=row.spec,
        checkpoint=row.checkpoint,
        lease_token=token,
        attempts=row.attempts,
        created_by=job.created_by,
    )


async def hold_slice(tx: Transaction, held: Slice, lease: timedelta, clock: Clock, **values: Any) -> bool:
    """Renew the lease and change the slice's row; False if the lease was lost to another worker."""
    row = await tx.one_or_none(
        update(job_slices)
        .where(
            job_slices.c.job_id == held.job_id,
            job_slices.c.ordinal == held.ordinal,
            job_slices.c.lease_token == held.lease_token,
            job_slices.c.state == "OPEN",
        )
        .values(lease_until=clock.now() + lease, **values)
        .returning(job_slices.c.ordinal)
    )
    return row is not None


async def release_slice(tx: Transaction, held: Slice, **values: Any) -> None:
    """Give a slice back, so that any worker may take it."""
    await tx.execute(
        update(job_slices)
        .where(
            job_slices.c.job_id == held.job_id,
            job_slices.c.ordinal == held.ordinal,
            job_slices.c.lease_token == held.lease_token,
        )
        .values(lease_token=None, lease_until=None, **values)
    )
    await announce_slices(tx)


async def announce_slices(tx: Transaction) -> None:
    """Tell dispatchers that slices became free. Progress is told on another channel, as it is no work for them."""
    await notify(tx, Channel.SLICES)


async def count_open_slices(tx: Transaction, job_id: UUID) -> int:
    """How many slices of a job are not done."""
    found: int = await tx.scalar(
        select(func.count()).where(job_slices.c.job_id == job_id, job_slices.c.state == "OPEN")
    )
    return found


async def list_slice_results(tx: Transaction, job_id: UUID) -> list[Json]:
    """What the slices of a job answered, in order."""
    rows = await tx.rows(
        select(job_slices.c.result).where(job_slices.c.job_id == job_id).order_by(job_slices.c.ordinal)
    )
    return [row.result or {} for row in rows]


async def read_checkpoint(tx: Transaction, job_id: UUID, ordinal: int = 0) -> Json:
    """How far a slice got; {} if it has not begun, or is not there."""
    found: Json | None = await tx.scalar(
        select(job_slices.c.checkpoint).where(job_slices.c.job_id == job_id, job_slices.c.ordinal == ordinal)
    )
    return found or {}


def _free(now: datetime) -> Sequence[ColumnElement[bool]]:
    return (
        job_slices.c.state == "OPEN",
        or_(job_slices.c.lease_until.is_(None), job_slices.c.lease_until < now),
        or_(job_slices.c.not_before.is_(None), job_slices.c.not_before <= now),
    )


def _job(row: Row[Any]) -> Job:
    values = {name: value for name, value in row._mapping.items() if name in _JOB_FIELDS}
    return Job(**{**values, "state": JobState(row.state)})


_JOB_FIELDS = frozenset(column.name for column in jobs.c)

__all__ = [
    "add_progress",
    "announce_slices",
    "claim_slice",
    "count_open_slices",
    "create_job",
    "find_ready_slices",
    "get_job",
    "get_jobs",
    "hold_slice",
    "list_jobs",
    "list_slice_results",
    "lock_state",
    "read_checkpoint",
    "release_slice",
    "update_job",
    "with_failures",
]
