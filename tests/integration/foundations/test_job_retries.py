"""Slices that crash: which are tried again, when, how often, and what the job says in the end."""

from __future__ import annotations

import pytest
from sqlalchemy import text, update

from shared.db.engine import Transaction
from shared.db.tables_shared import job_slices
from shared.errors import NotFound, Reason, Unavailable
from shared.foundation import Foundation
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, JobState, Json, Progress, SliceResults
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


async def test_a_crashing_slice_is_tried_again_later_and_then_fails_its_job(
    base: Foundation, executor: MakeExecutor, clock: StillClock
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
    base: Foundation, executor: MakeExecutor, clock: StillClock
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


async def test_a_slice_whose_workers_all_die_fails_its_job(
    base: Foundation, executor: MakeExecutor, clock: StillClock
) -> None:
    job_id = await start_items_job(base, 1)
    async with base.database.transaction() as tx:
        # As after that many kill -9: taken each time, got on never.
        await tx.execute(update(job_slices).values(attempts=base.settings.jobs.max_attempts))
    await executor(ItemsHandler()).run_slice(job_id, 0)
    job = await read_job(base, job_id)
    assert (job.state, job.error_reason) == (JobState.FAILED, Reason.JOB_FAILED)
    assert await stored_items(base, job_id) == []


async def test_an_error_of_the_request_fails_the_job_at_once_with_its_reason(
    base: Foundation, executor: MakeExecutor
) -> None:
    job_id = await start_items_job(base, 2)

    async def refuse(_run: SliceRun) -> Json:
        raise NotFound("person", "p1")

    await executor(RunHandler(refuse)).run_slice(job_id, 0)
    job = await read_job(base, job_id)
    assert (job.state, job.error_reason) == (JobState.FAILED, Reason.RESOURCE_NOT_FOUND)
    assert "p1" in (job.error_message or "")


async def test_a_store_that_is_away_costs_no_attempt(
    base: Foundation, executor: MakeExecutor, clock: StillClock
) -> None:
    job_id = await start_items_job(base, 2)

    async def away(_run: SliceRun) -> Json:
        raise Unavailable("the vector store does not answer")

    for _ in range(2 * base.settings.jobs.max_attempts):
        await executor(RunHandler(away)).run_slice(job_id, 0)
        assert await read_attempts(base, job_id) == 0
        clock.advance(60)
    assert (await read_job(base, job_id)).state is JobState.RUNNING
    await executor(ItemsHandler()).run_slice(job_id, 0)
    assert (await read_job(base, job_id)).state is JobState.SUCCEEDED


async def test_a_finish_that_crashes_leaves_the_slice_to_be_ended_again(
    base: Foundation, executor: MakeExecutor, clock: StillClock
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
    base: Foundation, executor: MakeExecutor, clock: StillClock
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
