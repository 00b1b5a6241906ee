"""One slice at a time, with a clock of the test's own: leases, retries and the ways in which a job ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from shared.db.engine import Transaction
from shared.db.tables_shared import job_slices
from shared.errors import NotFound, Reason, Unavailable
from shared.foundation import Foundation
from shared.jobs.control import cancel_job, pause_job, resume_job
from shared.jobs.execution import SliceExecutor, SliceRun
from shared.jobs.model import Job, JobState, Json, Progress, SliceResults
from shared.rpc.ambient import current_subject
from tests.integration.foundations.clock import StillClock
from tests.integration.foundations.items import KIND, ItemsHandler, read_job, start_items_job, stored_items

pytestmark = pytest.mark.usefixtures("items_table")


class RunHandler(ItemsHandler):
    """A handler whose work is one function."""

    def __init__(self, work: Callable[[SliceRun], Awaitable[Json]]) -> None:
        super().__init__()
        self._work = work

    async def run(self, run: SliceRun) -> Json:
        return await self._work(run)


@pytest.fixture
def executor(base: Foundation, clock: StillClock) -> Callable[..., SliceExecutor]:
    def make(handler: object) -> SliceExecutor:
        return SliceExecutor({KIND: handler}, base.database, clock, base.ids, base.settings.jobs)  # type: ignore[dict-item]

    return make


Make = Callable[..., SliceExecutor]


async def _attempts(base: Foundation, job_id: UUID) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(job_slices.c.attempts).where(job_slices.c.job_id == job_id))
    return found


async def test_slices_end_one_by_one_and_the_last_ends_the_job(base: Foundation, executor: Make) -> None:
    job_id = await start_items_job(base, 3, 2, 4)
    runner = executor(ItemsHandler())
    await runner.run_slice(job_id, 2)
    await runner.run_slice(job_id, 0)
    between = await read_job(base, job_id)
    assert (between.state, between.done, between.phase, between.result) == (JobState.RUNNING, 7, "storing", None)
    await runner.run_slice(job_id, 1)
    job = await read_job(base, job_id)
    # Results come in the order of the slices, whatever the order in which they ended.
    assert (job.state, job.result, job.phase) == (JobState.SUCCEEDED, {"ends": [3, 5, 9], "done": 9}, "")
    assert job.ended_at is not None
    assert await stored_items(base, job_id) == list(range(9))


async def test_a_job_works_in_the_name_of_whoever_started_it(base: Foundation, executor: Make) -> None:
    job_id = await start_items_job(base, 1)
    seen: list[str | None] = []

    async def note(_run: SliceRun) -> Json:
        seen.append(current_subject())
        raise Unavailable("for now")

    await executor(RunHandler(note)).run_slice(job_id, 0)
    assert seen == [(await read_job(base, job_id)).created_by]
    assert current_subject() is None


async def test_a_job_shows_in_the_metrics_of_its_worker(base: Foundation, executor: Make) -> None:
    job_id = await start_items_job(base, 6)
    runner = executor(ItemsHandler(failing=range(2)))
    await runner.run_slice(job_id, 0)

    def value(name: str, **labels: str) -> float | None:
        return runner.metrics.registry.get_sample_value(name, {"kind": KIND, **labels})

    assert value("kith_job_items_total", outcome="done") == 6
    assert value("kith_job_items_total", outcome="failed") == 2
    assert value("kith_job_slices_total", outcome="ended") == 1
    assert value("kith_job_slice_seconds_count") == 1
    assert value("kith_jobs_ended_total", state="SUCCEEDED") == 1


async def test_all_failures_are_counted_and_the_first_hundred_named(base: Foundation, executor: Make) -> None:
    job_id = await start_items_job(base, 120)
    await executor(ItemsHandler(failing=range(5, 115))).run_slice(job_id, 0)
    job = await read_job(base, job_id)
    assert (job.state, job.done, job.failed, job.failure_count) == (JobState.SUCCEEDED, 120, 110, 110)
    assert [failure.item_id for failure in job.failures] == [str(item) for item in range(5, 105)]
    assert job.failures[0].reason == "IMAGE_UNREADABLE"


async def test_the_rate_counts_from_where_work_last_began(base: Foundation, executor: Make, clock: StillClock) -> None:
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


async def test_a_paused_job_does_not_end_by_itself(base: Foundation, executor: Make) -> None:
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


async def test_cancelling_rolls_back_the_step_in_hand(base: Foundation, executor: Make) -> None:
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


async def test_a_zombie_cannot_commit(base: Foundation, executor: Make, clock: StillClock) -> None:
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


async def test_a_zombie_cannot_fail_the_job(base: Foundation, executor: Make, clock: StillClock) -> None:
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


async def test_a_crashing_slice_is_tried_again_later_and_then_fails_its_job(
    base: Foundation, executor: Make, clock: StillClock
) -> None:
    job_id = await start_items_job(base, 2)
    begun = 0

    async def crash(_run: SliceRun) -> Json:
        nonlocal begun
        begun += 1
        raise ZeroDivisionError

    runner = executor(RunHandler(crash))
    for expected in range(1, base.settings.jobs.max_attempts):
        await runner.run_slice(job_id, 0)
        assert begun == expected
        # Not before its time.
        await runner.run_slice(job_id, 0)
        assert begun == expected
        assert (await read_job(base, job_id)).state is JobState.RUNNING
        clock.advance(60)
    await runner.run_slice(job_id, 0)
    job = await read_job(base, job_id)
    assert begun == base.settings.jobs.max_attempts
    assert (job.state, job.error_reason) == (JobState.FAILED, Reason.JOB_FAILED)
    assert "ZeroDivision" not in (job.error_message or "")


async def test_crashes_count_only_since_the_slice_last_got_on(
    base: Foundation, executor: Make, clock: StillClock
) -> None:
    items = base.settings.jobs.max_attempts + 2
    job_id = await start_items_job(base, items)
    crashed: set[int] = set()

    async def crash_once_each(_run: SliceRun, item: int) -> None:
        if item not in crashed:
            crashed.add(item)
            raise ZeroDivisionError

    runner = executor(ItemsHandler(before=crash_once_each))
    for _ in range(items + 1):
        await runner.run_slice(job_id, 0)
        clock.advance(60)
    assert (await read_job(base, job_id)).state is JobState.SUCCEEDED
    assert await stored_items(base, job_id) == list(range(items))


async def test_a_slice_whose_workers_all_die_fails_its_job(base: Foundation, executor: Make, clock: StillClock) -> None:
    job_id = await start_items_job(base, 1)
    async with base.database.transaction() as tx:
        # As after that many kill -9: taken each time, got on never.
        await tx.execute(update(job_slices).values(attempts=base.settings.jobs.max_attempts))
    await executor(ItemsHandler()).run_slice(job_id, 0)
    job = await read_job(base, job_id)
    assert (job.state, job.error_reason) == (JobState.FAILED, Reason.JOB_FAILED)
    assert await stored_items(base, job_id) == []


async def test_an_error_of_the_request_fails_the_job_at_once_with_its_reason(base: Foundation, executor: Make) -> None:
    job_id = await start_items_job(base, 2)

    async def refuse(_run: SliceRun) -> Json:
        raise NotFound("person", "p1")

    await executor(RunHandler(refuse)).run_slice(job_id, 0)
    job = await read_job(base, job_id)
    assert (job.state, job.error_reason) == (JobState.FAILED, Reason.RESOURCE_NOT_FOUND)
    assert "p1" in (job.error_message or "")


async def test_a_store_that_is_away_costs_no_attempt(base: Foundation, executor: Make, clock: StillClock) -> None:
    job_id = await start_items_job(base, 2)

    async def away(_run: SliceRun) -> Json:
        raise Unavailable("the vector store does not answer")

    for _ in range(2 * base.settings.jobs.max_attempts):
        await executor(RunHandler(away)).run_slice(job_id, 0)
        assert await _attempts(base, job_id) == 0
        clock.advance(60)
    assert (await read_job(base, job_id)).state is JobState.RUNNING
    await executor(ItemsHandler()).run_slice(job_id, 0)
    assert (await read_job(base, job_id)).state is JobState.SUCCEEDED


async def test_pausing_between_steps_costs_no_attempt(base: Foundation, executor: Make) -> None:
    job_id = await start_items_job(base, 2)

    async def pause_and_wait(_run: SliceRun) -> Json:
        async with base.database.transaction() as tx:
            await pause_job(tx, "default", job_id, "")
        # The heartbeat notices, as a step may take minutes.
        await asyncio.Event().wait()
        raise AssertionError

    for _ in range(2):
        await executor(RunHandler(pause_and_wait)).run_slice(job_id, 0)
        assert await _attempts(base, job_id) == 0
        async with base.database.transaction() as tx:
            await resume_job(tx, "default", job_id, "")


async def test_a_slice_is_held_by_one_worker_at_a_time(base: Foundation, executor: Make) -> None:
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


async def test_a_finish_that_crashes_leaves_the_slice_to_be_ended_again(
    base: Foundation, executor: Make, clock: StillClock
) -> None:
    job_id = await start_items_job(base, 2)
    crashes = 1

    class CrashingEnd(ItemsHandler):
        async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
            nonlocal crashes
            await tx.execute(text("INSERT INTO test_items VALUES (:job_id, 99)"), {"job_id": job.job_id})
            if crashes:
                crashes -= 1
                raise ZeroDivisionError
            return await super().finish(tx, job, results)

    runner = executor(CrashingEnd())
    await runner.run_slice(job_id, 0)
    assert (await read_job(base, job_id)).state is JobState.RUNNING
    clock.advance(60)
    await runner.run_slice(job_id, 0)
    assert (await read_job(base, job_id)).state is JobState.SUCCEEDED
    assert await stored_items(base, job_id) == [0, 1, 99]


async def test_a_slice_that_only_tells_its_phase_does_not_go_on_for_ever(
    base: Foundation, executor: Make, clock: StillClock
) -> None:
    turns = 0

    async def work(run: SliceRun) -> Json:
        nonlocal turns
        turns += 1
        await run.report(Progress(phase="group"))
        raise RuntimeError("the same each time")

    job_id = await start_items_job(base, 1)
    runner = executor(RunHandler(work))
    while not (await read_job(base, job_id)).state.final:
        await runner.run_slice(job_id, 0)
        clock.advance(60)
        assert turns <= base.settings.jobs.max_attempts
    job = await read_job(base, job_id)
    assert (job.state, job.error_reason) == (JobState.FAILED, Reason.JOB_FAILED)
