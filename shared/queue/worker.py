"""The worker's side of the queue: a dispatcher that fills it from PostgreSQL, and a runner that empties it.

PostgreSQL knows which slices are open; Redis only spreads them over workers. So every worker dispatches: it looks for open
slices when a job is announced and once in a while, and queues each under a name made of the slice and its turn, which Redis
takes once. If Redis forgets everything, the next look queues it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, retry_key_prefix
from arq.typing import WorkerCoroutine
from arq.worker import Worker, func
from redis.exceptions import RedisError

from shared.clock import Clock
from shared.config import JobSettings, RedisSettings
from shared.db.engine import DATABASE_FAILURES, Database
from shared.db.notify import Channel, Listener
from shared.jobs.execution import SliceExecutor
from shared.jobs.repository import find_ready_slices
from shared.queue.pool import SLICE_TASK, open_queue, queue_name

log = structlog.get_logger(__name__)

DISPATCH_BATCH = 500
RECONNECT_S = 1.0
# The lease ends a slice that hangs, not arq.
LONGEST_S = 7 * 24 * 3600
# How long arq marks a turn as in progress: its timeout and ten seconds.
MARKED_S = LONGEST_S + 10
_MARKS = (in_progress_key_prefix, retry_key_prefix)


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Queues the open slices of one service."""

    service: str
    kinds: tuple[str, ...]
    database: Database
    listener: Listener
    clock: Clock
    settings: JobSettings

    async def run(self, queue: ArqRedis) -> None:
        """Dispatch until cancelled; raises what Redis or PostgreSQL raise."""
        async with self.listener.subscribe(Channel.SLICES) as announced:
            while True:
                await self.dispatch(queue)
                await announced.wait(self.settings.dispatch_interval_s)

    async def dispatch(self, queue: ArqRedis) -> int:
        """Queue every free slice that is not queued yet; returns how many."""
        async with self.database.transaction() as tx:
            ready = await find_ready_slices(tx, self.clock, self.kinds, DISPATCH_BATCH)
        queued, known = 0, []
        for turn in ready:
            name = f"{turn.job_id}:{turn.ordinal}:{turn.epoch}"
            if await queue.enqueue_job(SLICE_TASK, str(turn.job_id), turn.ordinal, _job_id=name):
                queued += 1
            else:
                known.append(name)
        if known:
            await self._free_abandoned(queue, known)
        return queued

    async def _free_abandoned(self, queue: ArqRedis, names: Sequence[str]) -> None:
        """Let others take turns whose worker died after it took them and before it claimed the slice.

        A turn is named after the claims before it, so one whose slice is free has not been claimed, however long it is
        marked as in progress.
        """
        marks = [in_progress_key_prefix + name for name in names]
        async with queue.pipeline(transaction=False) as pipe:
            for mark in marks:
                pipe.pttl(mark)
            left_ms = await pipe.execute()
        fresh_ms = (MARKED_S - self.settings.lease_s) * 1000
        abandoned = [name for name, left in zip(names, left_ms, strict=True) if 0 < left < fresh_ms]
        if abandoned:
            log.warning("turns_abandoned", count=len(abandoned))
            await queue.delete(*(prefix + name for name in abandoned for prefix in _MARKS))


class SliceWorker:
    """Runs slices of one service until drained; waits out a Redis that is away."""

    def __init__(self, executor: SliceExecutor, dispatcher: Dispatcher, redis: RedisSettings) -> None:
        self._executor = executor
        self._dispatcher = dispatcher
        self._redis = redis
        self._draining = False
        self._running: set[asyncio.Task[Any]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to take slices, in the background; answers the task, which ends only by :meth:`drain` or a fault."""
        self._task = asyncio.create_task(self._run_forever(), name="slice-worker")
        return self._task

    async def drain(self) -> None:
        """Take nothing new; slices in hand are given back at their last checkpoint for other workers to go on with."""
        self._draining = True
        for task in self._running:
            task.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._executor.settings.drain_s)
            if late:
                # Their leases bring them back elsewhere.
                log.warning("slices_left_behind", count=len(late))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run_slice(self, _context: dict[str, Any], job_id: str, ordinal: int) -> None:
        if self._draining:
            return
        # A task of our own, so that a Redis that goes away under arq does not stop the slice.
        task = asyncio.create_task(self._executor.run_slice(UUID(job_id), ordinal), name=f"slice-{job_id}-{ordinal}")
        self._running.add(task)
        task.add_done_callback(self._forget)
        await asyncio.wait([task])

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Only the database can fail here, before the claim or after the end; the lease brings the slice back.
            log.warning("slice_lost", error=type(error).__name__, detail=str(error).partition("\n")[0][:200])

    async def _run_forever(self) -> None:
        while True:
            try:
                await self._run_connected()
            except (RedisError, *DATABASE_FAILURES) as error:
                log.warning("queue_waits", error=type(error).__name__, detail=str(error).partition("\n")[0][:200])
            await asyncio.sleep(RECONNECT_S)

    async def _run_connected(self) -> None:
        queue = await open_queue(self._redis, self._dispatcher.service)
        try:
            worker = Worker(
                functions=[
                    func(
                        cast(WorkerCoroutine, self._run_slice),
                        name=SLICE_TASK,
                        keep_result=0,
                        max_tries=1,
                        timeout=LONGEST_S,
                    )
                ],
                queue_name=queue_name(self._redis, self._dispatcher.service),
                redis_pool=queue,
                max_jobs=self._executor.settings.slices_per_worker,
                job_timeout=LONGEST_S,
                keep_result=0,
                poll_delay=0.1,
                handle_signals=False,
                log_results=False,
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(self._dispatcher.run(queue), name="dispatcher")
                group.create_task(worker.async_run(), name="arq")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            await queue.aclose()
