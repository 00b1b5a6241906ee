"""Whole workers: queue, dispatcher, heartbeat, and what they survive."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from uuid import UUID

import pytest
from arq.constants import in_progress_key_prefix
from sqlalchemy import select, text, update

from shared.db.notify import Channel
from shared.db.tables_shared import job_slices, jobs
from shared.errors import Unavailable
from shared.foundation import Foundation
from shared.jobs.control import cancel_job, pause_job, resume_job
from shared.jobs.execution import SliceExecutor, SliceRun
from shared.jobs.model import JobState
from shared.queue.pool import open_queue
from shared.queue.worker import MARKED_S, Dispatcher
from tests.integration.conftest import eventually
from tests.integration.foundations.conftest import StartItemsWorker
from tests.integration.foundations.items import (
    KIND,
    SERVICE,
    ItemsHandler,
    read_job,
    start_items_job,
    stored_items,
)

pytestmark = pytest.mark.usefixtures("items_table")

ROOT = Path(__file__).parents[3]


async def ends(base: Foundation, job_id: UUID, state: JobState = JobState.SUCCEEDED) -> None:
    async def ended() -> bool:
        job = await read_job(base, job_id)
        assert not job.state.final or job.state is state, (job.state, job.error_reason, job.error_message)
        return job.state is state

    await eventually(ended)


class Gate:
    """Lets a handler come to one item and no further until opened."""

    def __init__(self, item: int) -> None:
        self._item = item
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _run: SliceRun, item: int) -> None:
        if item == self._item:
            self.reached.set()
            await self.open.wait()


def make_dispatcher(base: Foundation) -> Dispatcher:
    return Dispatcher(SERVICE, (KIND,), base.database, base.listener, base.clock, base.settings.jobs)


async def test_two_workers_share_a_job_and_do_each_item_once(base: Foundation, worker: StartItemsWorker) -> None:
    runs: dict[int, int] = {}

    async def alone(run: SliceRun, _item: int) -> None:
        ordinal = run.slice.ordinal
        runs[ordinal] = runs.get(ordinal, 0) + 1
        await asyncio.sleep(0)
        assert runs[ordinal] == 1
        runs[ordinal] -= 1

    for _ in range(2):
        await worker(ItemsHandler(before=alone))
    job_id = await start_items_job(base, *(4,) * 8)
    await ends(base, job_id)
    job = await read_job(base, job_id)
    assert (job.done, job.result) == (32, {"ends": list(range(4, 33, 4)), "done": 32})
    assert await stored_items(base, job_id) == list(range(32))


async def test_a_job_pauses_at_an_item_and_goes_on_exactly_there(base: Foundation, worker: StartItemsWorker) -> None:
    gate = Gate(3)
    await worker(ItemsHandler(inside=gate))
    job_id = await start_items_job(base, 6)
    await gate.reached.wait()
    async with base.database.transaction() as tx:
        await pause_job(tx, "default", job_id, "")

    async def given_back() -> bool:
        async with base.database.transaction() as tx:
            return await tx.scalar(select(job_slices.c.lease_token).where(job_slices.c.job_id == job_id)) is None

    await eventually(given_back)
    assert (await read_job(base, job_id)).state is JobState.PAUSED
    assert await stored_items(base, job_id) == [0, 1, 2]
    gate.open.set()
    async with base.database.transaction() as tx:
        await resume_job(tx, "default", job_id, "")
    await ends(base, job_id)
    assert await stored_items(base, job_id) == list(range(6))


async def test_cancelling_stops_the_work_in_hand(base: Foundation, worker: StartItemsWorker) -> None:
    gate = Gate(2)
    await worker(ItemsHandler(before=gate))
    job_id = await start_items_job(base, 4, 4)
    await gate.reached.wait()
    async with base.database.transaction() as tx:
        await cancel_job(tx, "default", job_id, "", base.clock)
    gate.open.set()
    await ends(base, job_id, JobState.CANCELLED)
    assert set(await stored_items(base, job_id)) <= {0, 1, 4, 5, 6, 7}


async def test_a_drained_worker_hands_its_slice_over(base: Foundation, worker: StartItemsWorker) -> None:
    gate = Gate(3)
    first = await worker(ItemsHandler(inside=gate))
    job_id = await start_items_job(base, 6)
    await gate.reached.wait()
    await first.drain()
    # Nothing waits for the lease: the slice is free, with its checkpoint, and the drain was no attempt.
    async with base.database.transaction() as tx:
        row = await tx.one_or_none(select(job_slices).where(job_slices.c.job_id == job_id))
    assert row is not None
    assert (row.lease_token, row.checkpoint, row.attempts) == (None, {"next": 3}, 0)
    await worker(ItemsHandler())
    await ends(base, job_id)
    assert await stored_items(base, job_id) == list(range(6))


def worker_environment(base: Foundation) -> dict[str, str]:
    settings = base.settings
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared" / "gen")]),
        "KITH_ENVIRONMENT": "test",
        "KITH_DATABASE_URL": settings.database.url.get_secret_value(),
        "KITH_REDIS_URL": settings.redis.url.get_secret_value(),
        "KITH_REDIS_QUEUE_PREFIX": settings.redis.queue_prefix,
        "KITH_QDRANT_URL": settings.qdrant.url,
        "KITH_QDRANT_PREFIX": settings.qdrant.prefix,
        "KITH_RPC_HEALTH_PORT": "0",
        "KITH_JOBS_LEASE_S": str(settings.jobs.lease_s),
        "KITH_JOBS_HEARTBEAT_S": str(settings.jobs.heartbeat_s),
    }


async def test_after_kill_9_in_the_middle_of_a_step_another_worker_finishes(
    base: Foundation, worker: StartItemsWorker
) -> None:
    job_id = await start_items_job(base, 8)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.foundations.killable_worker",
        "5",
        cwd=ROOT,
        env=worker_environment(base),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            # The log is on stdout too.
            while (line := await process.stdout.readline()).strip() != b"inside":
                assert line, "the worker ended before it reached the item"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await stored_items(base, job_id) == list(range(5))
    await worker(ItemsHandler())
    await ends(base, job_id)
    job = await read_job(base, job_id)
    assert (job.done, await stored_items(base, job_id)) == (8, list(range(8)))


async def test_a_turn_whose_worker_died_before_the_claim_is_taken_again(
    base: Foundation, worker: StartItemsWorker
) -> None:
    job_id = await start_items_job(base, 2)
    queue = await open_queue(base.settings.redis, SERVICE)
    try:
        dispatcher = make_dispatcher(base)
        assert await dispatcher.dispatch(queue) == 1
        mark = f"{in_progress_key_prefix}{job_id}:0:0"
        # Somebody took it just now: it is left alone.
        await queue.psetex(mark, int(MARKED_S * 1000), b"1")
        assert await dispatcher.dispatch(queue) == 0
        assert await queue.exists(mark)
        # As it looks one lease later, if that worker was killed before it could claim.
        await queue.psetex(mark, int((MARKED_S - base.settings.jobs.lease_s - 1) * 1000), b"1")
        await worker(ItemsHandler())
        await ends(base, job_id)
    finally:
        await queue.aclose()


async def test_a_free_slice_is_queued_once_however_often_it_is_dispatched(base: Foundation) -> None:
    await start_items_job(base, 1, 1, 1)
    queue = await open_queue(base.settings.redis, SERVICE)
    try:
        assert [await make_dispatcher(base).dispatch(queue) for _ in range(3)] == [3, 0, 0]
    finally:
        await queue.aclose()


async def test_a_redis_that_forgets_everything_and_hangs_up_loses_no_job(
    base: Foundation, worker: StartItemsWorker
) -> None:
    gate = Gate(3)
    await worker(ItemsHandler(inside=gate))
    job_id = await start_items_job(base, 6, 6, 6, 6)
    await gate.reached.wait()
    queue = await open_queue(base.settings.redis, SERVICE)
    try:
        await queue.flushall()
        await queue.client_kill_filter(_type="normal", skipme=True)
    finally:
        await queue.aclose()
    gate.open.set()
    await ends(base, job_id)
    assert await stored_items(base, job_id) == list(range(24))


async def test_without_any_notification_jobs_still_run(base: Foundation, worker: StartItemsWorker) -> None:
    await worker(ItemsHandler())
    # A job as NOTIFY would never have told of it.
    job_id = base.ids.new_uuid()
    async with base.database.transaction() as tx:
        await tx.execute(
            jobs.insert(),
            {
                "job_id": job_id,
                "library_id": "default",
                "kind": KIND,
                "spec": {},
                "unit": "item",
                "created_by": "tester",
                "created_at": base.clock.now(),
            },
        )
        await tx.execute(job_slices.insert(), {"job_id": job_id, "ordinal": 0, "spec": {"first": 0, "end": 3}})
    await ends(base, job_id)


async def test_the_listener_comes_back_and_wakes_everybody(base: Foundation) -> None:
    async with base.listener.subscribe(Channel.SLICES) as heard, base.database.transaction() as tx:
        # The listening connection is the one that is not in SQLAlchemy's pool and last ran LISTEN.
        async def listening() -> int:
            async with base.database.transaction() as other:
                found: int = await other.scalar(
                    text(
                        "SELECT count(*) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                    )
                )
            return found

        async def is_listening() -> bool:
            return await listening() == 1

        await eventually(is_listening)
        await heard.wait(0.1)
        await tx.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
        assert await heard.wait(20)


async def test_progress_does_not_wake_the_dispatchers(base: Foundation) -> None:
    job_id = await start_items_job(base, 3)
    executor = SliceExecutor({KIND: ItemsHandler()}, base.database, base.clock, base.ids, base.settings.jobs)
    async with (
        base.listener.subscribe(Channel.SLICES) as slices,
        base.listener.subscribe(Channel.JOBS, str(job_id)) as job,
    ):

        async def told() -> bool:
            await start_items_job(base, 1)
            return await slices.wait(0.2)

        await eventually(told)
        while await slices.wait(0.2):
            pass
        await executor.run_slice(job_id, 0)
        # Notifications come in order, so those of the slice's steps were heard before this one.
        assert await job.wait(20)
        assert not await slices.wait(0.2)


async def test_a_worker_whose_taking_of_slices_breaks_says_so(
    base: Foundation, worker: StartItemsWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UnforeseenError(Exception):
        pass

    async def break_down(_self: Dispatcher, _queue: object) -> None:
        raise UnforeseenError

    monkeypatch.setattr(Dispatcher, "run", break_down)
    broken = await worker(ItemsHandler())
    async with asyncio.timeout(20):
        with pytest.raises(UnforeseenError):
            await broken.wait()


async def test_a_worker_outlives_a_store_error_without_a_message(
    base: Foundation, worker: StartItemsWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Dispatcher.run
    failures = [TimeoutError()]

    async def fail_once(self: Dispatcher, queue: object) -> None:
        if failures:
            raise failures.pop()
        await run(self, queue)  # type: ignore[arg-type]

    monkeypatch.setattr(Dispatcher, "run", fail_once)
    await worker(ItemsHandler())
    job_id = await start_items_job(base, 2)
    await ends(base, job_id)
    assert not failures


async def test_a_slice_that_waits_for_a_store_ends_once_it_is_back(base: Foundation, worker: StartItemsWorker) -> None:
    away = [Unavailable("the vector store does not answer")]

    async def fail_once(_run: SliceRun, item: int) -> None:
        if item == 1 and away:
            raise away.pop()

    await worker(ItemsHandler(inside=fail_once))
    job_id = await start_items_job(base, 3)
    await ends(base, job_id)
    assert await stored_items(base, job_id) == [0, 1, 2]


async def test_a_worker_that_stands_still_keeps_its_lease(base: Foundation, worker: StartItemsWorker) -> None:
    gate = Gate(1)
    await worker(ItemsHandler(before=gate))
    job_id = await start_items_job(base, 2)
    await gate.reached.wait()
    async with base.database.transaction() as tx:
        await tx.execute(update(job_slices).values(lease_until=base.clock.now()))

    async def renewed() -> bool:
        async with base.database.transaction() as tx:
            until = await tx.scalar(select(job_slices.c.lease_until))
            taken: int = await tx.scalar(select(job_slices.c.epoch))
        return bool(until > base.clock.now()) and taken >= 1

    await eventually(renewed)
    gate.open.set()
    await ends(base, job_id)
    assert await stored_items(base, job_id) == [0, 1]
