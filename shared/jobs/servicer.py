"""JobService, the same on every server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from shared.clock import Clock
from shared.db.engine import Database
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.control import cancel_job, pause_job, resume_job
from shared.jobs.convert import from_job_state, to_job
from shared.jobs.model import Job
from shared.jobs.repository import list_jobs
from shared.jobs.watch import JobWatch
from shared.rpc.ambient import time_left
from shared.rpc.mutation import Answer, Mutations

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_WAIT_S = 30.0
MAX_WAIT_S = 55.0
MAX_KINDS = 100
# What is left for the answer when a wait ends with the call's own deadline: a share of it, and no less than this.
ANSWER_SHARE = 0.1
ANSWER_S = 0.2


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """Reads and steers any job, whichever service runs it."""

    def __init__(self, database: Database, watch: JobWatch, mutations: Mutations, clock: Clock) -> None:
        self._database = database
        self._watch = watch
        self._mutations = mutations
        self._clock = clock

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.GetJobResponse:
        library_id, job_id = parse_library_id(request.library_id), parse_uuid(request.job_id, "job_id")
        return jobs_pb2.GetJobResponse(job=self._message(await self._watch.wait(library_id, job_id, 0)))

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Context) -> jobs_pb2.ListJobsResponse:
        library_id = parse_library_id(request.library_id)
        if len(request.kinds) > MAX_KINDS:
            raise InvalidRequest(f"kinds must have at most {MAX_KINDS} entries", field="kinds")
        kinds = sorted(set(request.kinds))
        states = sorted({from_job_state(state) for state in request.states})
        filters = (library_id, tuple(kinds), tuple(states))
        page = read_page_request(request.page_size, request.page_token, default=50, maximum=500, filters=filters)
        async with self._database.snapshot() as tx:
            found = await list_jobs(tx, library_id, page, kinds, states)
        return jobs_pb2.ListJobsResponse(
            jobs=[self._message(job) for job in found.items], next_page_token=found.next_token
        )

    async def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        library_id, job_id = parse_library_id(request.library_id), parse_uuid(request.job_id, "job_id")
        snapshot = request.after_revision <= 0
        async for job in self._watch.watch(library_id, job_id, request.after_revision):
            yield jobs_pb2.WatchJobResponse(job=self._message(job), snapshot=snapshot)
            snapshot = False

    async def WaitJob(self, request: jobs_pb2.WaitJobRequest, context: Context) -> jobs_pb2.WaitJobResponse:
        library_id, job_id = parse_library_id(request.library_id), parse_uuid(request.job_id, "job_id")
        asked = request.timeout.ToMilliseconds() / 1000 if request.HasField("timeout") else DEFAULT_WAIT_S
        left = time_left()
        own = MAX_WAIT_S if left is None else max(0.0, left - max(ANSWER_S, ANSWER_SHARE * left))
        limit = min(asked, MAX_WAIT_S, own)
        job = await self._watch.wait(library_id, job_id, limit)
        return jobs_pb2.WaitJobResponse(job=self._message(job), ended=job.state.final)

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.CancelJobResponse:
        library_id, job_id = parse_library_id(request.library_id), parse_uuid(request.job_id, "job_id")
        return await self._mutations.run(
            request,
            jobs_pb2.CancelJobResponse,
            lambda tx, _: self._answer(
                cancel_job(tx, library_id, job_id, request.etag, self._clock), jobs_pb2.CancelJobResponse
            ),
        )

    async def PauseJob(self, request: jobs_pb2.PauseJobRequest, context: Context) -> jobs_pb2.PauseJobResponse:
        library_id, job_id = parse_library_id(request.library_id), parse_uuid(request.job_id, "job_id")
        return await self._mutations.run(
            request,
            jobs_pb2.PauseJobResponse,
            lambda tx, _: self._answer(pause_job(tx, library_id, job_id, request.etag), jobs_pb2.PauseJobResponse),
        )

    async def ResumeJob(self, request: jobs_pb2.ResumeJobRequest, context: Context) -> jobs_pb2.ResumeJobResponse:
        library_id, job_id = parse_library_id(request.library_id), parse_uuid(request.job_id, "job_id")
        return await self._mutations.run(
            request,
            jobs_pb2.ResumeJobResponse,
            lambda tx, _: self._answer(resume_job(tx, library_id, job_id, request.etag), jobs_pb2.ResumeJobResponse),
        )

    def _message(self, job: Job) -> jobs_pb2.Job:
        return to_job(job, self._clock.now())

    async def _answer(self, work: Awaitable[Job], answer_type: Callable[..., Answer]) -> Answer:
        return answer_type(job=self._message(await work))
