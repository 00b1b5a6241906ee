"""Runs one slice of a job: claim, heartbeat, checkpoints, the end, and every way it can go wrong.

A handler does its work in steps and passes each step's own transaction through :meth:`SliceRun.checkpoint`, which commits
results, progress and position together. If the worker dies, the next one goes on from the last checkpoint; if it merely was
slow and lost its lease, its checkpoint is refused and its step rolled back. So each step happens once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import structlog

from shared.clock import Clock
from shared.config import JobSettings
from shared.db.engine import Database, Transaction
from shared.errors import Code, KithError, Reason
from shared.ids import IdFactory
from shared.jobs.model import FINAL_STATES, LIVE_STATES, Job, JobState, Json, Progress, Slice, SliceResults
from shared.jobs.repository import (
    add_progress,
    claim_slice,
    count_open_slices,
    get_job,
    hold_slice,
    list_slice_results,
    lock_state,
    release_slice,
    update_job,
)
from shared.rpc.ambient import working_for
from shared.rpc.failures import to_kith_error
from shared.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

MAX_BACKOFF_S = 30.0
# Somebody else's trouble, however long it lasts: tried again without counting.
AWAY = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED})
# Another try may help, but not for ever.
UNLUCKY = frozenset({Reason.LOCK_TIMEOUT, Reason.DEADLINE_TOO_SHORT, Reason.INTERNAL_ERROR})


class SliceStopped(Exception):
    """The job was paused, cancelled or failed elsewhere, or the lease was lost: leave at once, touch nothing."""


class SliceRun:
    """What a handler sees of the slice it runs."""

    def __init__(self, held: Slice, database: Database, clock: Clock, settings: JobSettings, metrics: Metrics) -> None:
        self.slice = held
        self._database = database
        self._clock = clock
        self._lease = timedelta(seconds=settings.lease_s)
        self._items = metrics.job_items
        self._made = Progress()
        self._stopped = False
        self._got_on = False
        self.attempts = held.attempts
        """How often the slice was taken since it last got on, as stored; each step that got on sets it back to 0."""

    @asynccontextmanager
    async def step(self) -> AsyncIterator[Transaction]:
        """A transaction of this slice; call :meth:`checkpoint` in it exactly once, last.

        Raises :class:`SliceStopped` after the commit if the job is to pause.
        """
        async with self._database.transaction() as tx:
            yield tx
        if self._got_on:
            self.attempts = 0
        for outcome in ("done", "failed", "skipped"):
            self._items.labels(self.slice.kind, outcome).inc(getattr(self._made, outcome))
        self._made = Progress()
        if self._stopped:
            raise SliceStopped

    async def checkpoint(self, tx: Transaction, progress: Progress, position: Json | None = None) -> None:
        """Add progress and move the position, in the step's transaction.

        Raises :class:`SliceStopped`, so that the step is rolled back, if the job has ended or the lease is lost.
        """
        state = await lock_state(tx, self.slice.job_id)
        if state in FINAL_STATES:
            raise SliceStopped
        values: Json = {} if position is None else {"checkpoint": position}
        # A new phase alone is no progress: a slice that dies in it each time must not go on for ever.
        self._got_on = position is not None or progress.done > 0
        if self._got_on:
            values["attempts"] = 0
        if not await hold_slice(tx, self.slice, self._lease, self._clock, **values):
            raise SliceStopped
        await add_progress(tx, self.slice.job_id, progress)
        self._made = progress
        self._stopped = state is JobState.PAUSED

    async def report(self, progress: Progress) -> None:
        """A checkpoint of its own, for progress that has no data with it."""
        async with self.step() as tx:
            await self.checkpoint(tx, progress)


class JobHandler(Protocol):
    """One kind of job."""

    async def run(self, run: SliceRun) -> Json:
        """Do the slice's work from its checkpoint on; answers the slice's result."""
        ...

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Make the job's result of its slices' results, in the transaction that ends the job."""
        ...


@dataclass(frozen=True, slots=True)
class SliceExecutor:
    """Runs slices with the handlers of one service."""

    handlers: dict[str, JobHandler]
    database: Database
    clock: Clock
    ids: IdFactory
    settings: JobSettings
    metrics: Metrics = field(default_factory=Metrics)

    async def run_slice(self, job_id: UUID, ordinal: int) -> None:
        """Run a slice to its end, if it is free. Never raises for what the job itself did wrong."""
        lease = timedelta(seconds=self.settings.lease_s)
        async with self.database.transaction() as tx:
            held = await claim_slice(tx, job_id, ordinal, self.ids.new_uuid(), lease, self.clock)
        if held is None:
            return
        with structlog.contextvars.bound_contextvars(
            job_id=str(job_id), job_kind=held.kind, library_id=held.library_id, slice=ordinal
        ):
            if held.attempts > self.settings.max_attempts:
                await self._fail_job(held, Reason.JOB_FAILED, f"slice {ordinal} was begun {held.attempts} times")
                return
            await self._run_held(held)

    async def _run_held(self, held: Slice) -> None:
        run = SliceRun(held, self.database, self.clock, self.settings, self.metrics)
        outcome = "ended"
        begun = time.perf_counter()
        try:
            with working_for(held.created_by):
                result = await self._with_heartbeat(held, self.handlers[held.kind].run(run))
            await self._end_slice(held, result)
        except SliceStopped:
            outcome = "stopped"
            await self._release(held, attempts=_uncounted(run))
        except asyncio.CancelledError:
            outcome = "drained"
            # The worker is going down: the next one may go on at once. The attempt was not the slice's fault.
            await asyncio.shield(self._release(held, attempts=_uncounted(run)))
            raise
        except Exception as error:
            outcome = "failed"
            known = to_kith_error(error)
            if known is not None:
                await self._handle_failure(run, known)
                return
            log.exception("slice_crashed")
            await self._retry_later(held, "an error of ours; the log has it", attempts=run.attempts)
        finally:
            self.metrics.job_slices.labels(held.kind, outcome).inc()
            self.metrics.job_slice_seconds.labels(held.kind).observe(time.perf_counter() - begun)

    async def _with_heartbeat(self, held: Slice, work: Awaitable[Json]) -> Json:
        task = asyncio.ensure_future(work)
        beat = asyncio.create_task(self._heartbeat(held, task.cancel), name="slice-heartbeat")
        try:
            return await task
        except asyncio.CancelledError:
            if beat.done() and not beat.cancelled():
                raise SliceStopped from None
            raise
        finally:
            beat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beat

    async def _heartbeat(self, held: Slice, stop: Callable[[], object]) -> None:
        """Keep the lease; returns, having stopped the work, when the lease is lost or the job has left RUNNING."""
        lease = timedelta(seconds=self.settings.lease_s)
        while True:
            await asyncio.sleep(self.settings.heartbeat_s)
            try:
                async with self.database.transaction() as tx:
                    state = await lock_state(tx, held.job_id)
                    kept = await hold_slice(tx, held, lease, self.clock)
            except Exception as error:
                # The database is away. The work finds out by itself at its next checkpoint.
                log.warning("heartbeat_missed", error=type(error).__name__)
                continue
            if not kept or state not in LIVE_STATES:
                stop()
                return

    async def _end_slice(self, held: Slice, result: Json) -> None:
        async with self.database.transaction() as tx:
            state = await lock_state(tx, held.job_id)
            if state in FINAL_STATES:
                return
            if state is JobState.PAUSED:
                # A paused job does not end by itself: the slice comes to its end again after ResumeJob.
                raise SliceStopped
            lease = timedelta(seconds=self.settings.lease_s)
            if not await hold_slice(tx, held, lease, self.clock, state="DONE", result=result):
                return
            if await count_open_slices(tx, held.job_id):
                return
            job = await get_job(tx, held.library_id, held.job_id)
            made = await self.handlers[held.kind].finish(tx, job, await list_slice_results(tx, held.job_id))
            await update_job(
                tx, held.job_id, state=JobState.SUCCEEDED.value, result=made, ended_at=self.clock.now(), phase=""
            )
        self.metrics.jobs_ended.labels(held.kind, JobState.SUCCEEDED.value).inc()
        log.info("job_succeeded")

    async def _handle_failure(self, run: SliceRun, error: KithError) -> None:
        if error.code in AWAY and error.reason is not Reason.MEMORY_BUDGET:
            log.warning("slice_waits", reason=error.reason.value, message=error.message)
            await self._retry_later(run.slice, error.message, attempts=_uncounted(run))
        elif error.reason in UNLUCKY:
            log.warning("slice_tries_again", reason=error.reason.value, message=error.message)
            await self._retry_later(run.slice, error.message, attempts=run.attempts)
        else:
            await self._fail_job(run.slice, error.reason, error.message)

    async def _retry_later(self, held: Slice, message: str, *, attempts: int) -> None:
        if attempts >= self.settings.max_attempts:
            await self._fail_job(held, Reason.JOB_FAILED, message)
            return
        pause = min(MAX_BACKOFF_S, 0.5 * 2**held.attempts) * random.uniform(0.5, 1.0)
        await self._release(held, attempts=attempts, not_before=self.clock.now() + timedelta(seconds=pause))

    async def _release(self, held: Slice, **values: object) -> None:
        async with self.database.transaction() as tx:
            await release_slice(tx, held, **values)

    async def _fail_job(self, held: Slice, reason: Reason, message: str) -> None:
        lease = timedelta(seconds=self.settings.lease_s)
        async with self.database.transaction() as tx:
            if await lock_state(tx, held.job_id) in FINAL_STATES:
                return
            # Whoever lost the lease has no say any more: another worker may be getting on well.
            if not await hold_slice(tx, held, lease, self.clock):
                return
            await update_job(
                tx,
                held.job_id,
                state=JobState.FAILED.value,
                error_reason=reason.value,
                error_message=message,
                ended_at=self.clock.now(),
            )
            await release_slice(tx, held)
        self.metrics.jobs_ended.labels(held.kind, JobState.FAILED.value).inc()
        log.warning("job_failed", reason=reason.value, message=message)


def _uncounted(run: SliceRun) -> int:
    """The attempts to store when this one is not to count."""
    return max(0, run.attempts - 1)
