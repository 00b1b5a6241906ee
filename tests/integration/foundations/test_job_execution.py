"""Slices run one at a time, with a clock of the test's own: what they add up to, and what is told of it."""

from __future__ import annotations

import pytest

from shared.errors import Unavailable
from shared.foundation import Foundation
from shared.jobs.execution import SliceRun
from shared.jobs.model import JobState, Json
from shared.rpc.ambient import current_subject
from tests.integration.foundations.conftest import MakeExecutor
from tests.integration.foundations.items import KIND, ItemsHandler, RunHandler, read_job, start_items_job, stored_items

pytestmark = pytest.mark.usefixtures("items_table")


async def test_slices_end_one_by_one_and_the_last_ends_the_job(base: Foundation, executor: MakeExecutor) -> None:
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


async def test_a_job_works_in_the_name_of_whoever_started_it(base: Foundation, executor: MakeExecutor) -> None:
    job_id = await start_items_job(base, 1)
    seen: list[str | None] = []

    async def note(_run: SliceRun) -> Json:
        seen.append(current_subject())
        raise Unavailable("for now")

    await executor(RunHandler(note)).run_slice(job_id, 0)
    assert seen == [(await read_job(base, job_id)).created_by]
    assert current_subject() is None


async def test_a_job_shows_in_the_metrics_of_its_worker(base: Foundation, executor: MakeExecutor) -> None:
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


async def test_all_failures_are_counted_and_the_first_hundred_named(base: Foundation, executor: MakeExecutor) -> None:
    job_id = await start_items_job(base, 120)
    await executor(ItemsHandler(failing=range(5, 115))).run_slice(job_id, 0)
    job = await read_job(base, job_id)
    assert (job.state, job.done, job.failed, job.failure_count) == (JobState.SUCCEEDED, 120, 110, 110)
    assert [failure.item_id for failure in job.failures] == [str(item) for item in range(5, 105)]
    assert job.failures[0].reason == "IMAGE_UNREADABLE"
