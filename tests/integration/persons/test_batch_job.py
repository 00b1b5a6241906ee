"""BatchAssignFaces of more faces than one call can: the job ``persons.assign_faces``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import assignments_pb2
from services.persons.worker import start as start_worker
from shared.db.tables_persons import assignments, change_faces, persons
from shared.db.tables_shared import job_failures, job_slices, jobs
from shared.errors import InvalidRequest, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.jobs.asking import ASK_PAIRS
from shared.jobs.model import Job, JobState
from shared.jobs.repository import get_job
from tests.integration.conftest import Running, eventually
from tests.integration.library import random_vectors, seed_faces
from tests.integration.persons.client import HUMAN, MACHINE, PersonsClient
from tests.integration.persons.standing_still import Watch, make_executor

ROOT = Path(__file__).parents[3]


async def read_job(base: Foundation, job_id: str) -> Job:
    async with base.database.transaction() as tx:
        return await get_job(tx, "default", UUID(job_id))


async def run_job(base: Foundation, job: jobs_pb2.Job, before: Watch | None = None) -> Job:
    await make_executor(base, before).run_slice(UUID(job.id), 0)
    ended = await read_job(base, job.id)
    assert ended.state is JobState.SUCCEEDED, (ended.error_reason, ended.error_message)
    return ended


async def read_failures(base: Foundation, job_id: str) -> dict[str, str]:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(job_failures).where(job_failures.c.job_id == UUID(job_id)))
    assert len({row.item_id for row in rows}) == len(rows)
    return {row.item_id: row.reason for row in rows}


async def count_held(base: Foundation, person_id: str) -> tuple[int, int]:
    """Faces a person has, by their assignments and by their own count."""
    async with base.database.transaction() as tx:
        held = await tx.scalar(select(func.count()).where(assignments.c.person_id == UUID(person_id)))
        told = await tx.scalar(select(persons.c.face_count).where(persons.c.person_id == UUID(person_id)))
    return held, told


async def test_the_job_names_each_face_that_could_not_go_and_fills_one_change(
    client: PersonsClient, base: Foundation
) -> None:
    seeded = await seed_faces(base, random_vectors(600))
    anna, bert = await client.create("Anna"), await client.create("Bert", seeded.face_ids[:1])
    await client.assign(seeded.face_ids[1], anna, MACHINE)
    await client.exclude(seeded.face_ids[599], anna)
    unknown = uuid4()
    answer = await client.assign_all([*seeded.face_ids, unknown], anna, reason="all of them")
    assert not answer.assignments
    assert (answer.job.kind, answer.job.progress.total, answer.job.progress.unit) == (
        "persons.assign_faces",
        601,
        "face",
    )
    ended = await run_job(base, answer.job)
    assert ended.result == {"assigned": 598, "failed": 3, "change_id": answer.change_id}
    assert (ended.done, ended.failed, ended.skipped) == (598, 3, 0)
    assert await read_failures(base, answer.job.id) == {
        str(seeded.face_ids[0]): "FACE_ALREADY_ASSIGNED",
        str(seeded.face_ids[599]): "FACE_EXCLUDED",
        str(unknown): "RESOURCE_NOT_FOUND",
    }
    assert (await count_held(base, anna), await count_held(base, bert)) == ((598, 598), (1, 1))
    change = await client.get_change(answer.change_id)
    assert (change.reason, change.face_count, list(change.person_ids)) == ("all of them", 598, [anna])
    assert list(change.face_ids) == [str(face_id) for face_id in seeded.face_ids[1:501]]
    # The machine's assignment is a human's now.
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(assignments.c.source == "MACHINE")) == 0


async def test_it_can_be_undone_as_one(client: PersonsClient, base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(501))
    anna = await client.create("Anna")
    answer = await client.assign_all(seeded.face_ids, anna)
    await run_job(base, answer.job)
    undone = await client.undo(answer.change_id)
    assert undone.reverted_count == 501
    assert await count_held(base, anna) == (0, 0)


async def test_undone_before_it_begins_it_assigns_nothing(client: PersonsClient, base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(501))
    anna = await client.create("Anna")
    answer = await client.assign_all(seeded.face_ids, anna)
    undone = await client.undo(answer.change_id)
    assert (undone.reverted_count, undone.change.undoes) == (0, answer.change_id)
    ended = await run_job(base, answer.job)
    assert (ended.done, ended.failed, ended.skipped) == (0, 0, 501)
    assert await count_held(base, anna) == (0, 0)


async def test_of_a_machines_doubles_the_first_in_order_counts_and_the_others_are_asked(
    client: PersonsClient, base: Foundation
) -> None:
    seeded = await seed_faces(base, random_vectors(502), faces_per_photo=2)
    anna = await client.create("Anna")
    # The second faces of all photos come after all first ones, so in other steps.
    order = seeded.face_ids[::2] + seeded.face_ids[1::2]
    answer = await client.assign_all(order, anna, source=MACHINE)
    ended = await run_job(base, answer.job)
    assert ended.result == {"assigned": 251, "failed": 251, "change_id": answer.change_id}
    doubles = {str(face_id) for face_id in seeded.face_ids[1::2]}
    assert await read_failures(base, answer.job.id) == dict.fromkeys(doubles, "SAME_PHOTO_DOUBLE")
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(job_slices.c.spec).join(jobs).where(jobs.c.kind == ASK_PAIRS))
    asked = [pair for row in rows for pair in row.spec["pairs"]]
    assert sorted(asked) == sorted([face_id, anna, 0.75] for face_id in doubles)


@pytest.mark.parametrize("end", ["merged", "deleted"])
async def test_once_the_person_is_gone_the_rest_fails_by_id(client: PersonsClient, base: Foundation, end: str) -> None:
    seeded = await seed_faces(base, random_vectors(600))
    anna, bert = await client.create("Anna"), await client.create("Bert")
    answer = await client.assign_all(seeded.face_ids, anna)

    async def end_person(step: int) -> None:
        if step == 1:
            await (client.merge(bert, anna) if end == "merged" else client.delete(anna))

    ended = await run_job(base, answer.job, end_person)
    assert ended.result == {"assigned": 250, "failed": 350, "change_id": answer.change_id}
    rest = {str(face_id): "PERSON_NOT_ACTIVE" for face_id in seeded.face_ids[250:]}
    assert await read_failures(base, answer.job.id) == rest
    assert await count_held(base, anna) == (0, 0)
    assert await count_held(base, bert) == ((250, 250) if end == "merged" else (0, 0))
    assert (await client.get_change(answer.change_id)).face_count == 250


async def test_what_is_undone_meanwhile_is_not_filled_any_further(client: PersonsClient, base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(600))
    anna = await client.create("Anna")
    answer = await client.assign_all(seeded.face_ids, anna)

    async def take_back(step: int) -> None:
        if step == 2:
            assert (await client.undo(answer.change_id)).reverted_count == 500

    ended = await run_job(base, answer.job, take_back)
    assert (ended.done, ended.failed, ended.skipped) == (500, 0, 100)
    assert await count_held(base, anna) == (0, 0)


async def test_after_kill_9_in_the_middle_of_a_step_another_worker_finishes_and_nothing_is_doubled(
    client: PersonsClient, running: Running, base: Foundation
) -> None:
    seeded = await seed_faces(base, random_vectors(600))
    anna = await client.create("Anna")
    await client.exclude(seeded.face_ids[10], anna)
    answer = await client.assign_all(seeded.face_ids, anna)
    await kill_inside(base, step=1)
    assert await count_held(base, anna) == (249, 249)
    await running.worker(start_worker)

    async def ended() -> bool:
        return (await read_job(base, answer.job.id)).state is JobState.SUCCEEDED

    await eventually(ended, timeout_s=60)
    job = await read_job(base, answer.job.id)
    assert job.result == {"assigned": 599, "failed": 1, "change_id": answer.change_id}
    assert (job.done, job.failed, job.failure_count) == (599, 1, 1)
    assert await count_held(base, anna) == (599, 599)
    assert (await client.get_change(answer.change_id)).face_count == 599
    async with base.database.transaction() as tx:
        filled = select(func.count()).where(change_faces.c.change_id == UUID(answer.change_id))
        assert await tx.scalar(filled) == 599


async def kill_inside(base: Foundation, step: int) -> None:
    """Have a worker stand still inside a step of the job, and kill it there."""
    settings = base.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.persons.standing_still",
        str(step),
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared" / "gen")]),
            "KITH_ENVIRONMENT": "test",
            "KITH_DATABASE_URL": settings.database.url.get_secret_value(),
            "KITH_REDIS_URL": settings.redis.url.get_secret_value(),
            "KITH_REDIS_QUEUE_PREFIX": settings.redis.queue_prefix,
            "KITH_QDRANT_URL": settings.qdrant.url,
            "KITH_QDRANT_PREFIX": settings.qdrant.prefix,
            "KITH_RPC_HEALTH_PORT": "0",
            "KITH_JOBS_LEASE_S": str(settings.jobs.lease_s),
            "KITH_JOBS_HEARTBEAT_S": str(settings.jobs.heartbeat_s),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            # The log is on stdout too.
            while (line := await process.stdout.readline()).strip() != b"inside":
                assert line, "the worker ended before it reached the step"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_a_retry_starts_no_second_job(client: PersonsClient, base: Foundation) -> None:
    anna = await client.create("Anna")
    face_ids, request_id = [uuid4() for _ in range(501)], str(uuid4())
    first = await client.assign_all(face_ids, anna, request_id=request_id)
    assert await client.assign_all(face_ids, anna, request_id=request_id) == first
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(jobs)) == 1


async def test_what_no_job_could_do_is_refused_at_once(client: PersonsClient) -> None:
    anna, bert = await client.create("Anna"), await client.create("Bert")
    many = [uuid4() for _ in range(200_001)]
    for face_ids, dry_run, field in (
        (many, False, "face_ids"),
        ([], False, "face_ids"),
        ([*many[:600], many[0]], False, "face_ids"),
        (many[:501], True, "dry_run"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await client.assign_all(face_ids, anna, source=HUMAN, dry_run=dry_run)
        assert refused.value.violations[0].field == field
    await client.merge(bert, anna)
    with pytest.raises(PreconditionFailed) as gone:
        await client.assign_all(many[:501], anna)
    assert gone.value.reason is Reason.PERSON_NOT_ACTIVE
    assert isinstance(await client.assign_all(many[:501], bert), assignments_pb2.BatchAssignFacesResponse)
