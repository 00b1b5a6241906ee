"""JobService over real gRPC."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import grpc
import pytest

from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from shared.config import Settings
from shared.errors import EtagMismatch, InvalidRequest, KithError, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation, build_server, open_foundation
from shared.jobs.execution import SliceExecutor, SliceRun
from shared.rpc.channel import translate_errors
from shared.rpc.server import RpcServer
from tests.integration.conftest import Running
from tests.integration.foundations.items import KIND, ItemsHandler, start_items_job

pytestmark = pytest.mark.usefixtures("items_table")


async def start(settings: Settings, stack: AsyncExitStack) -> RpcServer:
    server = await build_server(await open_foundation(settings, stack, "test.server"), stack, "test")
    await server.start()
    return server


@pytest.fixture
async def stub(running: Running) -> jobs_pb2_grpc.JobServiceStub:
    return jobs_pb2_grpc.JobServiceStub(await running.server("persons", start))


def make_executor(base: Foundation, handler: ItemsHandler) -> SliceExecutor:
    return SliceExecutor({KIND: handler}, base.database, base.clock, base.ids, base.settings.jobs)


async def test_watching_begins_with_a_snapshot_and_ends_with_the_end(
    base: Foundation, stub: jobs_pb2_grpc.JobServiceStub
) -> None:
    job_id = await start_items_job(base, 4)
    seen: list[jobs_pb2.WatchJobResponse] = []
    arrived = asyncio.Condition()

    async def watch() -> None:
        async for message in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id))):
            async with arrived:
                seen.append(message)
                arrived.notify_all()

    async def step_by_step(_run: SliceRun, item: int) -> None:
        # Every change is seen before the next is made, so none is skipped.
        async with arrived:
            await arrived.wait_for(lambda: seen and seen[-1].job.revision == 2 + item)

    watching = asyncio.create_task(watch())
    async with arrived:
        await arrived.wait_for(lambda: bool(seen))
    async with asyncio.timeout(30):
        await make_executor(base, ItemsHandler(before=step_by_step)).run_slice(job_id, 0)
        await watching
    assert [message.job.revision for message in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert [message.snapshot for message in seen] == [True] + [False] * 6
    assert [message.job.progress.done for message in seen] == [0, 0, 1, 2, 3, 4, 4]
    last = seen[-1].job
    assert (last.state, dict(last.result)["done"]) == (jobs_pb2.JOB_STATE_SUCCEEDED, 4)
    assert not last.progress.HasField("time_left")

    after = [message async for message in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id), after_revision=5))]
    assert [(message.job.revision, message.snapshot) for message in after] == [(7, False)]
    nothing = [
        message async for message in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id), after_revision=7))
    ]
    assert nothing == []


async def test_watching_a_job_of_another_library_is_not_found(
    base: Foundation, stub: jobs_pb2_grpc.JobServiceStub
) -> None:
    job_id = await start_items_job(base, 1)
    request = jobs_pb2.WatchJobRequest(job_id=str(job_id), library_id="other")
    with pytest.raises(NotFound):
        async with translate_errors("jobs"):
            await anext(aiter(stub.WatchJob(request)))


async def test_waiting_answers_at_the_end_or_after_the_timeout(
    base: Foundation, stub: jobs_pb2_grpc.JobServiceStub
) -> None:
    job_id = await start_items_job(base, 2)
    request = jobs_pb2.WaitJobRequest(job_id=str(job_id))
    request.timeout.FromMilliseconds(50)
    early = await stub.WaitJob(request)
    assert (early.ended, early.job.state) == (False, jobs_pb2.JOB_STATE_QUEUED)
    # The call's own deadline is sooner than the 30 s asked for by default: answered in time, not DEADLINE_EXCEEDED.
    unasked = await stub.WaitJob(jobs_pb2.WaitJobRequest(job_id=str(job_id)), timeout=8)
    assert not unasked.ended
    request.timeout.FromMilliseconds(20_000)
    waiting = asyncio.create_task(_wait(stub, request))
    await make_executor(base, ItemsHandler()).run_slice(job_id, 0)
    late = await waiting
    assert (late.ended, late.job.state) == (True, jobs_pb2.JOB_STATE_SUCCEEDED)


async def _wait(stub: jobs_pb2_grpc.JobServiceStub, request: jobs_pb2.WaitJobRequest) -> jobs_pb2.WaitJobResponse:
    return await stub.WaitJob(request, timeout=30)


async def test_pages_of_jobs_skip_and_repeat_none_while_jobs_are_added(
    base: Foundation, stub: jobs_pb2_grpc.JobServiceStub
) -> None:
    known = {str(await start_items_job(base, 1)) for _ in range(7)}
    seen: list[str] = []
    token = ""
    while True:
        page = await stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=2, page_token=token, kinds=[KIND]))
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
        await start_items_job(base, 1)
    assert len(seen) == len(set(seen))
    assert known <= set(seen)
    first = await stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=2))
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("jobs"):
            await stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=2, page_token=first.next_page_token, kinds=[KIND]))
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("state", [jobs_pb2.JOB_STATE_UNSPECIFIED, 77])
async def test_listing_by_a_state_that_does_not_exist_is_the_callers_fault(
    stub: jobs_pb2_grpc.JobServiceStub, state: jobs_pb2.JobState.ValueType
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("jobs"):
            await stub.ListJobs(jobs_pb2.ListJobsRequest(states=[state]))
    assert [violation.field for violation in refused.value.violations] == ["states"]


async def test_steering_respects_etags_and_is_answered_once(
    base: Foundation, stub: jobs_pb2_grpc.JobServiceStub
) -> None:
    job_id = str(await start_items_job(base, 2))
    fresh = (await stub.GetJob(jobs_pb2.GetJobRequest(job_id=job_id))).job
    request = jobs_pb2.PauseJobRequest(job_id=job_id, etag=fresh.etag, request_id=str(uuid4()))
    paused = await stub.PauseJob(request)
    assert paused.job.state == jobs_pb2.JOB_STATE_PAUSED
    resumed = await stub.ResumeJob(jobs_pb2.ResumeJobRequest(job_id=job_id, etag=paused.job.etag))
    assert resumed.job.state == jobs_pb2.JOB_STATE_QUEUED
    # The retry gets the first answer and pauses nothing, though its etag is long stale.
    assert await stub.PauseJob(request) == paused
    assert (await stub.GetJob(jobs_pb2.GetJobRequest(job_id=job_id))).job.etag == resumed.job.etag
    with pytest.raises(EtagMismatch):
        async with translate_errors("jobs"):
            await stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id, etag=paused.job.etag))
    with pytest.raises(KithError) as reused:
        async with translate_errors("jobs"):
            await stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id, request_id=request.request_id))
    assert reused.value.reason is Reason.REQUEST_ID_REUSED


async def test_an_ended_job_is_not_steered(base: Foundation, stub: jobs_pb2_grpc.JobServiceStub) -> None:
    job_id = str(await start_items_job(base, 2))
    cancelled = await stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id))
    again = await stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id))
    assert again.job.etag == cancelled.job.etag
    assert again.job.state == jobs_pb2.JOB_STATE_CANCELLED
    for call in (
        stub.PauseJob(jobs_pb2.PauseJobRequest(job_id=job_id)),
        stub.ResumeJob(jobs_pb2.ResumeJobRequest(job_id=job_id)),
    ):
        with pytest.raises(PreconditionFailed) as refused:
            async with translate_errors("jobs"):
                await call
        assert refused.value.reason is Reason.JOB_STATE


async def test_a_broken_watch_leaves_the_server_well(base: Foundation, stub: jobs_pb2_grpc.JobServiceStub) -> None:
    job_id = await start_items_job(base, 1)
    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id)))
    assert (await anext(aiter(call))).snapshot
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert (await stub.GetJob(jobs_pb2.GetJobRequest(job_id=str(job_id)))).job.id == str(job_id)
