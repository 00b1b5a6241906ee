"""Jobs that are paused, resumed and cancelled, a slice at a time: what was done stays, and what was in hand does not."""

from __future__ import annotations

import asyncio

import pytest

from shared.foundation import Foundation
from shared.jobs.control import cancel_job, pause_job, resume_job
from shared.jobs.execution import SliceRun
from shared.jobs.model import JobState, Json
from tests.integration.foundations.clock import StillClock
from tests.integration.foundations.conftest import MakeExecutor
from tests.integration.foundations.items import (
    ItemsHandler,
    RunHandler,
    read_attempts,
    read_job,
    start_items_job,
    stored_items,
)

pytestmark = pytest.mark.usefixtures("items_table")


async def test_the_rate_counts_from_where_work_last_began(
    base: Foundation, executor: MakeExecutor, clock: StillClock
) -> None:
    async def pause_at_four(_run: SliceRun, item: int) -> None:
        clock.advance(2)
        if item == 4:
            async with base.database.transaction() as tx:
                await pause_job(tx, "default", job_id, "")

    job_id = await start_items_job(base, 10)
    await executor(ItemsHandler(before=pause_at_four)).run_slice(job_id, 0)
    paused = await read_job(base, job_id)
    assert (paused.state, paused.done) == (JobState.PAUSED, 5)
    assert paused.rate(clock.now()) == 0
    clock.advance(1000)
    async with base.database.transaction() as tx:
        await resume_job(tx, "default", job_id, "")

    rates: list[float] = []

    async def note(_run: SliceRun, item: int) -> None:
        rates.append((await read_job(base, job_id)).rate(clock.now()))
        clock.advance(4)

    await executor(ItemsHandler(before=note)).run_slice(job_id, 0)
    # One item in four seconds: neither the pause nor the faster items before it count.
    assert rates == [0.0, 0.25, 0.25, 0.25, 0.25]
    assert await stored_items(base, job_id) == list(range(10))


async def test_a_paused_job_does_not_end_by_itself(base: Foundation, executor: MakeExecutor) -> None:
    job_id = await start_items_job(base, 3)

    async def work(run: SliceRun) -> Json:
        result = await ItemsHandler().run(run)
        # The pause comes when every item is done and only the end is left.
        async with base.database.transaction() as tx:
            await pause_job(tx, "default", job_id, "")
        return result

    await executor(RunHandler(work)).run_slice(job_id, 0)
    assert (await read_job(base, job_id)).state is JobState.PAUSED
    async with base.database.transaction() as tx:
        await resume_job(tx, "default", job_id, "")
    await executor(ItemsHandler()).run_slice(job_id, 0)
    assert (await read_job(base, job_id)).state is JobState.SUCCEEDED
    assert await stored_items(base, job_id) == [0, 1, 2]


async def test_cancelling_rolls_back_the_step_in_hand(base: Foundation, executor: MakeExecutor) -> None:
    job_id = await start_items_job(base, 5)

    async def cancel_at_two(_run: SliceRun, item: int) -> None:
        if item == 2:
            async with base.database.transaction() as tx:
                await cancel_job(tx, "default", job_id, "", base.clock)

    await executor(ItemsHandler(inside=cancel_at_two)).run_slice(job_id, 0)
    job = await read_job(base, job_id)
    assert (job.state, job.done, job.result) == (JobState.CANCELLED, 2, None)
    assert await stored_items(base, job_id) == [0, 1]
    # And nobody takes it up again.
    await executor(ItemsHandler()).run_slice(job_id, 0)
    assert await stored_items(base, job_id) == [0, 1]


async def test_pausing_between_steps_costs_no_attempt(base: Foundation, executor: MakeExecutor) -> None:
    job_id = await start_items_job(base, 2)

    async def pause_and_wait(_run: SliceRun) -> Json:
        async with base.database.transaction() as tx:
            await pause_job(tx, "default", job_id, "")
        # The heartbeat notices, as a step may take minutes.
        await asyncio.Event().wait()
        raise AssertionError

    for _ in range(2):
        await executor(RunHandler(pause_and_wait)).run_slice(job_id, 0)
        assert await read_attempts(base, job_id) == 0
        async with base.database.transaction() as tx:
            await resume_job(tx, "default", job_id, "")
