"""Whole workers: sharing a job, pausing, handing over, and what they survive."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, update

from shared.db.tables_shared import job_slices
from shared.errors import Unavailable
from shared.foundation import Foundation
from shared.jobs.control import cancel_job, pause_job, resume_job
from shared.jobs.execution import SliceRun
from shared.jobs.model import JobState
from shared.queue.worker import Dispatcher
from tests.integration.conftest import eventually
from tests.integration.foundations.conftest import StartItemsWorker
from tests.integration.foundations.items import ItemsHandler, read_job, start_items_job, stored_items
from tests.integration.foundations.working import Gate, ends

pytestmark = pytest.mark.usefixtures("items_table")


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
