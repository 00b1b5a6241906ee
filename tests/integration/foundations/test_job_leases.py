"""Leases of slices: one worker holds a slice at a time, and whoever lost it can do nothing to the job any more."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import NotFound
from shared.foundation import Foundation
from shared.jobs.execution import SliceRun
from shared.jobs.model import JobState, Json
from tests.integration.foundations.clock import StillClock
from tests.integration.foundations.conftest import MakeExecutor
from tests.integration.foundations.items import ItemsHandler, RunHandler, read_job, start_items_job, stored_items

pytestmark = pytest.mark.usefixtures("items_table")


async def test_a_zombie_cannot_commit(base: Foundation, executor: MakeExecutor, clock: StillClock) -> None:
    job_id = await start_items_job(base, 6)
    stolen = asyncio.Event()

    async def lose_the_lease(_run: SliceRun, item: int) -> None:
        if item == 3 and not stolen.is_set():
            stolen.set()
            clock.advance(base.settings.jobs.lease_s + 1)
            # The whole rest of the slice, by another worker, while this one stands still.
            await executor(ItemsHandler()).run_slice(job_id, 0)

    await executor(ItemsHandler(before=lose_the_lease)).run_slice(job_id, 0)
    assert stolen.is_set()
    job = await read_job(base, job_id)
    assert (job.state, job.done) == (JobState.SUCCEEDED, 6)
    assert await stored_items(base, job_id) == list(range(6))


async def test_a_zombie_cannot_fail_the_job(base: Foundation, executor: MakeExecutor, clock: StillClock) -> None:
    job_id = await start_items_job(base, 2)
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def slow_and_wrong(_run: SliceRun) -> Json:
        clock.advance(base.settings.jobs.lease_s + 1)
        other = asyncio.create_task(executor(ItemsHandler(before=hold)).run_slice(job_id, 0))
        await taken.wait()
        others.append(other)
        raise NotFound("thing", "1")

    async def hold(_run: SliceRun, _item: int) -> None:
        taken.set()
        await go_on.wait()

    others: list[asyncio.Task[None]] = []
    await executor(RunHandler(slow_and_wrong)).run_slice(job_id, 0)
    assert (await read_job(base, job_id)).state is JobState.RUNNING
    go_on.set()
    await others[0]
    assert (await read_job(base, job_id)).state is JobState.SUCCEEDED


async def test_a_slice_is_held_by_one_worker_at_a_time(base: Foundation, executor: MakeExecutor) -> None:
    job_id = await start_items_job(base, 2)
    inside, most = 0, 0

    async def count(_run: SliceRun) -> Json:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        result = await ItemsHandler().run(_run)
        inside -= 1
        return result

    await asyncio.gather(*(executor(RunHandler(count)).run_slice(job_id, 0) for _ in range(5)))
    assert most == 1
    assert await stored_items(base, job_id) == [0, 1]
