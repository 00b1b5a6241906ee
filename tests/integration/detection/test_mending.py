"""The doctor's jobs when they are held up: paused, cancelled, killed, without a relay, and while people work."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, select

from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc, persons_pb2, persons_pb2_grpc
from services.detection.domain.mending import REBUILD_VECTORS, RECONCILE
from services.detection.mending_jobs import DriftFinder, EveryPoint, MendPoints, PageFinder
from services.detection.worker import start as start_worker
from services.persons.server import start as start_persons
from shared.db.outbox import PointKind, queue_points
from shared.db.tables_shared import vector_outbox
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler, SliceExecutor
from shared.vectors.reconcile import Comparison
from tests.integration.conftest import Running, eventually
from tests.integration.detection.client import DetectionClient, wait_relayed
from tests.integration.detection.mending import (
    COUNT,
    lose_everything,
    read_versions,
    rebuild,
    reconcile,
    relay_all,
    relaying,
    result_of,
    wait_job,
)
from tests.integration.detection.test_interruptions import ROOT, environment
from tests.integration.library import MODEL, SeededFaces, random_vectors, seed_faces

PAGE = 8


@pytest.fixture
async def lost(detection: DetectionClient, base: Foundation) -> SeededFaces:
    """Faces whose points Qdrant has lost; nobody relays."""
    found = await seed_faces(base, random_vectors(COUNT))
    await relay_all(base)
    await lose_everything(base)
    return found


def build_executor(base: Foundation, stalled_s: float = 60) -> SliceExecutor:
    """Runs the doctor's slices by hand, with small pages."""
    comparison = Comparison(base.qdrant, base.collections)
    finders: dict[str, PageFinder] = {
        RECONCILE: DriftFinder(base.database, comparison),
        REBUILD_VECTORS: EveryPoint(base.database, PAGE),
    }
    handlers: dict[str, JobHandler] = {
        kind: MendPoints(base.database, base.clock, base.collections, comparison, finder, stalled_s)
        for kind, finder in finders.items()
    }
    return SliceExecutor(handlers, base.database, base.clock, base.ids, base.settings.jobs)


async def get_job(client: DetectionClient, job: jobs_pb2.Job) -> jobs_pb2.Job:
    return (await client.jobs.GetJob(jobs_pb2.GetJobRequest(job_id=job.id))).job


async def count_queued(base: Foundation) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).select_from(vector_outbox))
    return found


async def test_no_more_than_a_page_waits_in_the_outbox(
    lost: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    job = await rebuild(detection, base.collections.faces(MODEL))
    work = asyncio.create_task(build_executor(base).run_slice(UUID(job.id), 0))
    waited: list[int] = []

    async def relayed() -> bool:
        waited.append(await count_queued(base))
        await relay_all(base)
        return work.done()

    await eventually(relayed)
    assert max(waited) == PAGE
    assert result_of(await get_job(detection, job)) == {"upserted": COUNT}


async def test_pause_cancel_and_going_on(lost: SeededFaces, detection: DetectionClient, base: Foundation) -> None:
    executor = build_executor(base)
    name = base.collections.faces(MODEL)
    job, other = await rebuild(detection, name), await rebuild(detection, name)
    work = asyncio.create_task(executor.run_slice(UUID(job.id), 0))

    async def queued() -> bool:
        return await count_queued(base) == PAGE

    await eventually(queued)
    await detection.jobs.PauseJob(jobs_pb2.PauseJobRequest(job_id=job.id))
    await work
    paused = await get_job(detection, job)
    assert (paused.state, paused.progress.done) == (jobs_pb2.JOB_STATE_PAUSED, 0)
    work = asyncio.create_task(executor.run_slice(UUID(other.id), 0))
    await detection.jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=other.id))
    await work
    assert (await get_job(detection, other)).state == jobs_pb2.JOB_STATE_CANCELLED
    await detection.jobs.ResumeJob(jobs_pb2.ResumeJobRequest(job_id=job.id))
    async with relaying(base):
        await executor.run_slice(UUID(job.id), 0)
    ended = await get_job(detection, job)
    assert result_of(ended) == {"upserted": COUNT}
    assert ended.progress.done == COUNT


@pytest.mark.parametrize("start", [rebuild, reconcile])
async def test_a_slice_goes_on_where_its_worker_went_away(
    lost: SeededFaces,
    detection: DetectionClient,
    base: Foundation,
    start: Callable[[DetectionClient, str], Awaitable[jobs_pb2.Job]],
) -> None:
    job = await start(detection, base.collections.faces(MODEL))
    work = asyncio.create_task(build_executor(base).run_slice(UUID(job.id), 0))

    async def queued() -> bool:
        return await count_queued(base) > 0

    await eventually(queued)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert (await get_job(detection, job)).progress.done == 0
    async with relaying(base):
        await build_executor(base).run_slice(UUID(job.id), 0)
    ended = await get_job(detection, job)
    # Counted once, although the page was queued before the first worker went.
    assert result_of(ended)["upserted"] == ended.progress.done == COUNT
    versions = await read_versions(base, lost.face_ids)
    assert len(versions) == COUNT


async def test_what_others_queue_meanwhile_is_not_waited_for(
    lost: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    job = await rebuild(detection, base.collections.faces(MODEL))
    work = asyncio.create_task(build_executor(base).run_slice(UUID(job.id), 0))
    # Within the first page, and nobody ever writes it.
    other = UUID(int=min(lost.face_ids).int + 1)

    async def queued() -> bool:
        return await count_queued(base) == PAGE

    await eventually(queued)
    async with base.database.transaction() as tx:
        await queue_points(tx, base.clock, PointKind.FACE, "default", [(other, MODEL)])

    async def relayed() -> bool:
        async with base.database.transaction() as tx:
            await tx.execute(delete(vector_outbox).where(vector_outbox.c.point_id != other))
        return work.done()

    await eventually(relayed)
    assert result_of(await get_job(detection, job)) == {"upserted": COUNT}


async def test_a_relay_that_gets_nowhere_is_waited_for(
    lost: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    job = await rebuild(detection, base.collections.faces(MODEL))
    await build_executor(base, stalled_s=0.05).run_slice(UUID(job.id), 0)
    assert (await get_job(detection, job)).state == jobs_pb2.JOB_STATE_RUNNING
    await relay_all(base)
    executor = build_executor(base)

    async def ended() -> bool:
        # The slice is not free before its pause is over.
        await executor.run_slice(UUID(job.id), 0)
        return (await get_job(detection, job)).state == jobs_pb2.JOB_STATE_SUCCEEDED

    async with relaying(base):
        await eventually(ended)


async def test_what_people_assign_while_it_is_mended_ends_up_right(
    lost: SeededFaces, detection: DetectionClient, running: Running, base: Foundation
) -> None:
    channel = await running.server("persons", start_persons)
    people, assigning = persons_pb2_grpc.PersonServiceStub(channel), assignments_pb2_grpc.AssignmentServiceStub(channel)
    anna = await people.CreatePerson(persons_pb2.CreatePersonRequest(person=persons_pb2.Person(name="Anna")))
    await running.worker(start_worker)
    jobs = [await rebuild(detection), await reconcile(detection)]
    for face_id in lost.face_ids:
        await assigning.AssignFace(
            assignments_pb2.AssignFaceRequest(face_id=str(face_id), person_id=anna.person.id, request_id=str(uuid4()))
        )
    for face_id in lost.face_ids[::3]:
        await assigning.UnassignFace(assignments_pb2.UnassignFaceRequest(face_id=str(face_id)))
    for job in jobs:
        assert (await wait_job(detection, job)).state == jobs_pb2.JOB_STATE_SUCCEEDED
    await wait_relayed(base)
    checked = await detection.check()
    assert checked.consistent, checked


async def test_a_killed_worker_leaves_nothing_out(
    detection: DetectionClient, running: Running, base: Foundation
) -> None:
    """Killed for good in its second page, which it cannot queue, as somebody holds a row of it."""
    count = 5000
    seeded = await seed_faces(base, random_vectors(count, 8))
    await relay_all(base)
    await lose_everything(base)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.detection.worker", cwd=ROOT, env=environment(running.settings)
    )
    try:
        async with base.database.transaction() as tx:
            await queue_points(tx, base.clock, PointKind.FACE, "default", [(max(seeded.face_ids[:3000]), MODEL)])
            job = await rebuild(detection)

            async def first_page_written() -> bool:
                return (await get_job(detection, job)).progress.done >= 2000

            await eventually(first_page_written, 60)
            process.send_signal(signal.SIGKILL)
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (await get_job(detection, job)).progress.done == 2000
    await running.worker(start_worker)
    ended = await wait_job(detection, job)
    assert result_of(ended) == {"upserted": count}
    assert ended.progress.done == ended.progress.total == count
    assert (await detection.check()).consistent
