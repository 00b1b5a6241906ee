"""Jobs of discovery as a test asks for them, and runs them itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import UUID

from kith.jobs.v1 import jobs_pb2
from services.suggestions.domain.model import SuggestionsDeps
from services.suggestions.wiring import build_deps, build_handlers
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.foundation import Foundation
from shared.jobs.execution import SliceExecutor
from shared.jobs.model import Job
from shared.jobs.repository import get_job
from tests.integration.suggestions.conftest import WAIT, Questions
from tests.integration.suggestions.world import PATIENT

Start = Callable[[Transaction, SuggestionsDeps, str, Caller], Awaitable[Job]]


async def run_tidying(base: Foundation, stack: AsyncExitStack, start: Start) -> Job:
    """Create a job that goes through the questions, run it, and answer it as it ended."""
    async with base.database.transaction() as tx:
        job = await start(tx, build_deps(base), "default", Caller("test", "test"))
    return await run_slice(base, stack, job)


async def run_slice(base: Foundation, stack: AsyncExitStack, job: Job) -> Job:
    """Run the one slice of a job."""
    executor = SliceExecutor(build_handlers(base, stack), base.database, base.clock, base.ids, PATIENT)
    await executor.run_slice(job.job_id, 0)
    async with base.database.transaction() as tx:
        return await get_job(tx, "default", job.job_id)


async def wait_job(questions: Questions, job_id: str) -> jobs_pb2.Job:
    """Wait until a job has ended, and well."""
    answer = await questions.jobs.WaitJob(jobs_pb2.WaitJobRequest(job_id=job_id, timeout=WAIT), timeout=55)
    assert answer.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, answer.job
    return answer.job


class Nowhere:
    """A search by centroid that nobody is to use."""

    async def find_unassigned(self, library_id: str, person_id: UUID, limit: int, min_cosine: float) -> set[UUID]:
        raise AssertionError("searched by centroid")
