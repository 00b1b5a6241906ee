"""ForgetPerson over real gRPC, PostgreSQL and Qdrant: nothing of a person is left anywhere, and that is proven."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf import json_format
from sqlalchemy import delete, func, insert, select, text

from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from kith.persons.v1 import changes_pb2
from kith.persons.v1 import persons_pb2 as pb
from services.detection import forgetting_jobs
from services.detection.domain.model import DetectionDeps
from services.detection.domain.ports import CropsSwept
from services.detection.forgetting_jobs import ForgetFacesHandler
from services.persons.domain.forgetting import FORGET_PERSON, STAGES
from services.persons.repository.receipts import find_receipts
from services.persons.server import start
from shared.db.outbox import PointKind, queue_points
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments, changes, receipts
from shared.db.tables_shared import idempotency_keys, job_slices, jobs
from shared.errors import EtagMismatch, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler, SliceExecutor, SliceRun
from shared.jobs.forgetting import FORGET_FACES
from shared.jobs.model import Job, Json, SliceResults
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running, eventually
from tests.integration.detection.known import relay
from tests.integration.library import MODEL, random_vectors, seed_faces
from tests.integration.persons.forgetting import (
    OLD_MODEL,
    NoCrops,
    World,
    assign,
    find_in_qdrant,
    find_in_tables,
    make_handlers,
    make_world,
    merge,
    working,
)
from tests.integration.persons.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Persons:
    """The persons server, with jobs."""

    ledger: Ledger
    jobs: jobs_pb2_grpc.JobServiceStub

    async def etag(self, person_id: str) -> str:
        request = pb.GetPersonRequest(person_id=person_id, show_deleted=True)
        return (await self.ledger.people.GetPerson(request)).person.etag

    async def forget(self, person_id: str, etag: str = "", **fields: Any) -> jobs_pb2.Job:
        async with translate_errors("persons"):
            request = pb.ForgetPersonRequest(person_id=person_id, etag=etag, request_id=str(uuid4()), **fields)
            return (await self.ledger.people.ForgetPerson(request)).job

    async def ended(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        request = jobs_pb2.WaitJobRequest(job_id=job.id)
        request.timeout.FromSeconds(50)
        answer = await self.jobs.WaitJob(request, timeout=55)
        assert answer.ended, answer.job
        return answer.job

    async def receipt(self, person_id: str) -> pb.Receipt:
        async with translate_errors("persons"):
            return (await self.ledger.people.GetReceipt(pb.GetReceiptRequest(person_id=person_id))).receipt


@pytest.fixture
async def persons(running: Running) -> Persons:
    channel = await running.server("persons", start)
    return Persons(Ledger(channel), jobs_pb2_grpc.JobServiceStub(channel))


@pytest.fixture
async def world(persons: Persons, base: Foundation) -> World:
    made = await make_world(base, persons.ledger)
    await relay(base)
    assert len(await find_in_qdrant(base, made.ids)) > 10
    for trace in (*made.traces(), *made.ids):
        assert len(await find_in_tables(base, trace)) >= 2, trace
    return made


async def assert_nothing_left(base: Foundation, world: World) -> None:
    """No name, no secret; ids on the receipts and in the one change alone, and nowhere in Qdrant."""
    for trace in world.traces():
        assert await find_in_tables(base, trace) == {}, trace
    for person_id in world.ids:
        assert await find_in_tables(base, person_id) == {"receipts": 1, "changes": 1}
    assert await find_in_qdrant(base, world.ids) == []
    async with base.database.transaction() as tx:
        (row,) = await tx.rows(select(changes).where(changes.c.person_ids.contains([UUID(world.her)])))
        waiting = await tx.scalar(select(func.count()).where(job_slices.c.spec["person_ids"][0].astext.is_not(None)))
    assert (row.kind, row.before, row.after, row.reason) == ("PERSON_FORGOTTEN", {}, {}, "")
    assert waiting, "what is yet to run goes on without the person"


def stores_of(job: jobs_pb2.Job) -> dict[str, int]:
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    result = json_format.MessageToDict(job.result)
    assert all(store["verified_at"] for store in result["stores"])
    return {store["store"]: int(store["deleted"]) for store in result["stores"]}


async def test_nothing_is_left_of_a_person_but_the_receipt(persons: Persons, world: World, base: Foundation) -> None:
    async with working(base, make_handlers(base)):
        job = await persons.ended(await persons.forget(world.her, await persons.etag(world.her), delete_faces=True))
    stores = stores_of(job)
    await assert_nothing_left(base, world)
    # Faces 0..4, 6 and 7 were theirs; 5 had become Bert's.
    gone = [world.seeded.face_ids[number] for number in (0, 1, 2, 3, 4, 6, 7)]
    async with base.database.transaction() as tx:
        left = await tx.scalar(select(func.count()).select_from(faces).where(faces.c.face_id == func.any(gone)))
        counted = await tx.scalar(text("SELECT sum(face_count) FROM assets"))
    assert (left, counted) == (0, 24 - 7)
    assert await find_in_qdrant(base, [str(face_id) for face_id in gone]) == []
    prefix = base.settings.qdrant.prefix
    expected = {
        "postgres.faces": 7,
        "postgres.face_embeddings": 14,
        "postgres.exclusions": 1,
        "postgres.centroids": 2,
        "postgres.matchers": 1,
        "postgres.persons": 2,
        "detection.crops": 0,
        f"qdrant.{prefix}_faces_{MODEL}": 7,
        f"qdrant.{prefix}_faces_{OLD_MODEL}": 7,
        f"qdrant.{prefix}_centroids_{MODEL}": 1,
        f"qdrant.{prefix}_centroids_{OLD_MODEL}": 1,
    }
    assert {name: stores[name] for name in expected} == expected
    # Of the four questions three were about her; in the evidence for Bert she was next best.
    assert (stores["postgres.suggestions"], stores["postgres.reviews"]) == (4, 2)
    assert stores["postgres.idempotency_keys"] >= 10
    receipt = await persons.receipt(world.part)
    assert (receipt.job_id, receipt.faces_deleted, receipt.HasField("complete_time")) == (job.id, True, True)
    assert {each.store: each.deleted_count for each in receipt.stores} == stores


async def test_faces_that_somebody_else_deletes_meanwhile_end_nothing(
    persons: Persons, world: World, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting_jobs, "BATCH", 1)
    job = await persons.forget(world.her, await persons.etag(world.her), delete_faces=True)

    async def somebody_waits() -> bool:
        async with base.database.transaction() as tx:
            return bool(await tx.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    async with working(base, make_handlers(base)):
        async with base.database.transaction() as tx:
            await tx.execute(select(assets).where(assets.c.asset_id == world.seeded.asset_ids[0]).with_for_update())
            await eventually(somebody_waits)
            # All that the first batch has found.
            first = world.seeded.face_ids[0]
            await tx.execute(delete(faces).where(faces.c.face_id == first))
            await queue_points(tx, base.clock, PointKind.FACE, "default", [(first, MODEL), (first, OLD_MODEL)])
        stores = stores_of(await persons.ended(job))
    assert stores["postgres.faces"] == 6
    await assert_nothing_left(base, world)
    gone = [world.seeded.face_ids[number] for number in (0, 1, 2, 3, 4, 6, 7)]
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(faces.c.face_id == func.any(gone))) == 0


async def test_a_face_given_once_their_faces_were_deleted_is_deleted_too(
    persons: Persons, world: World, base: Foundation
) -> None:
    late = world.seeded.face_ids[20]
    sweeps = 0

    class Sweeping(NoCrops):
        """While the first sweep is under way somebody who had begun before says that a face is hers."""

        async def sweep(self, library_id: str) -> CropsSwept:
            nonlocal sweeps
            sweeps += 1
            if sweeps == 1:
                await give(base, late, world.her)
            return await super().sweep(library_id)

    class Giving:
        """Somebody does so once detection has ended."""

        def __init__(self, handler: JobHandler) -> None:
            self._handler = handler

        async def run(self, run: SliceRun) -> Json:
            return await self._handler.run(run)

        async def finish(self, tx: Any, job: Job, results: SliceResults) -> Json:
            if sweeps == 2:
                await give(base, world.seeded.face_ids[21], world.her)
            return await self._handler.finish(tx, job, results)

    handlers = make_handlers(base)
    detection = DetectionDeps(base.clock, base.ids, base.settings.detection)
    handlers[FORGET_FACES] = Giving(ForgetFacesHandler(base.database, detection, Sweeping()))
    job = await persons.forget(world.her, await persons.etag(world.her), delete_faces=True)
    async with working(base, handlers):
        stores = stores_of(await persons.ended(job))
    assert (stores["postgres.faces"], stores["postgres.assignments"], sweeps) == (9, 0, 3)
    await assert_nothing_left(base, world)


async def give(base: Foundation, face_id: UUID, person_id: str) -> None:
    """Assign a face past every rule."""
    async with base.database.transaction() as tx:
        row = {
            "face_id": face_id,
            "library_id": "default",
            "person_id": UUID(person_id),
            "source": "HUMAN",
            "confidence": 1.0,
            "version": 1,
            "change_id": await tx.scalar(select(changes.c.change_id).limit(1)),
            "assigned_at": base.clock.now(),
        }
        await tx.execute(insert(assignments), row)


async def test_a_retry_does_not_make_the_person_again(persons: Persons, base: Foundation) -> None:
    request = pb.CreatePersonRequest(person=pb.Person(name="Anna"), request_id=str(uuid4()))
    anna = (await persons.ledger.people.CreatePerson(request)).person
    assert (await persons.ledger.people.CreatePerson(request)).person.id == anna.id
    async with working(base, make_handlers(base)):
        stores_of(await persons.ended(await persons.forget(anna.id, anna.etag)))
    with pytest.raises(NotFound) as refused:
        async with translate_errors("persons"):
            await persons.ledger.people.CreatePerson(request)
    assert refused.value.metadata["resource"] == "person"
    assert await find_in_tables(base, "Anna") == {}
    assert await find_in_tables(base, anna.id) == {"receipts": 1, "changes": 1}


async def test_faces_may_stay_as_nobodys(persons: Persons, world: World, base: Foundation) -> None:
    async with working(base, make_handlers(base)):
        job = await persons.ended(await persons.forget(world.her, await persons.etag(world.her)))
    stores = stores_of(job)
    await assert_nothing_left(base, world)
    assert not {"postgres.faces", "detection.crops"} & stores.keys()
    assert stores["postgres.assignments"] == 7
    assert stores["postgres.prototypes"] > 0
    assert stores[f"qdrant.{base.settings.qdrant.prefix}_faces_{MODEL}"] == 7
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(faces)) == 24
        assert await tx.scalar(select(func.count()).select_from(assignments)) == 4
    records = await base.qdrant.retrieve(base.collections.faces(OLD_MODEL), [str(world.seeded.face_ids[0])])
    assert (records[0].payload or {})["assigned"] is False


async def test_what_was_done_to_others_stays_and_can_be_undone(
    persons: Persons, world: World, base: Foundation
) -> None:
    ledger = persons.ledger
    seen = await list_changes(ledger)
    async with working(base, make_handlers(base)):
        await persons.ended(await persons.forget(world.her, await persons.etag(world.her)))
    now = await list_changes(ledger)
    assert len(now) == len(seen) + 1
    for change_id, before in seen.items():
        after = now[change_id]
        assert (after.kind, after.actor, after.create_time, after.rpc) == (
            before.kind,
            before.actor,
            before.create_time,
            before.rpc,
        )
    moved = now[world.to_bert]
    assert (list(moved.person_ids), list(moved.face_ids), moved.reason) == (
        [world.bert],
        list(seen[world.to_bert].face_ids),
        "",
    )
    (face,) = (await ledger.changes.ListChangeFaces(changes_pb2.ListChangeFacesRequest(change_id=world.to_bert))).faces
    assert (face.HasField("before"), face.after.person_id) == (False, world.bert)
    undone = await ledger.undo(world.to_bert)
    assert undone.reverted_count == 1
    # That Carl was part of her for a while is nobody's business any more, and never comes back.
    async with base.database.transaction() as tx:
        undo = await tx.scalar(select(changes.c.change_id).where(changes.c.undoes == UUID(world.undone_merge)))
    with pytest.raises(PreconditionFailed) as refused:
        async with translate_errors("persons"):
            await ledger.undo(str(undo))
    assert refused.value.reason is Reason.CHANGE_NOT_UNDOABLE
    carl = (await ledger.people.GetPerson(pb.GetPersonRequest(person_id=world.carl))).person
    assert (carl.name, carl.face_count, carl.status) == ("Carl", 1, pb.PERSON_STATUS_ACTIVE)


async def list_changes(ledger: Ledger) -> dict[str, changes_pb2.Change]:
    """Every change, by id."""
    answer = await ledger.changes.ListChanges(changes_pb2.ListChangesRequest(page_size=500))
    assert not answer.next_page_token
    return {change.id: change for change in answer.changes}


async def test_a_second_call_is_answered_as_the_first(persons: Persons, base: Foundation) -> None:
    anna, eve = [(await persons.ledger.create(name)).person.id for name in ("Anna", "Eve")]
    await merge(persons.ledger, anna, eve)
    for wrong, refusal in (("", PreconditionFailed), ("7777", EtagMismatch)):
        with pytest.raises(refusal):
            await persons.forget(anna, wrong)
    with pytest.raises(PreconditionFailed) as refused:
        await persons.forget(eve, await persons.etag(eve))
    assert refused.value.metadata["merged_into"] == anna
    with pytest.raises(NotFound):
        await persons.receipt(anna)
    etag = await persons.etag(anna)
    twins = await asyncio.gather(*(persons.forget(anna, etag) for _ in range(4)))
    assert len({job.id for job in twins}) == 1
    assert not (await persons.receipt(anna)).HasField("complete_time")
    async with base.database.transaction() as tx:
        assert set(await find_receipts(tx, [UUID(anna), UUID(eve), uuid4()])) == {UUID(anna), UUID(eve)}
    seeded = await seed_faces(base, random_vectors(1))
    with pytest.raises(PreconditionFailed) as inactive:
        await assign(persons.ledger, seeded.face_ids[0], anna)
    assert inactive.value.reason is Reason.PERSON_NOT_ACTIVE
    async with working(base, make_handlers(base)):
        first = await persons.ended(twins[0])
    stores_of(first)
    # Nobody is there any more, and the answer is the same: also for whoever had become part of her.
    for person in (anna, eve):
        again = await persons.forget(person, "stale", delete_faces=True)
        assert (again.id, again.result) == (first.id, first.result)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(changes.c.kind == "PERSON_FORGOTTEN")) == 1
        assert await tx.scalar(select(func.count()).where(jobs.c.kind == FORGET_PERSON)) == 1
    with pytest.raises(NotFound):
        await persons.forget(str(uuid4()), "1")


async def test_a_deleted_person_is_forgotten_with_the_faces_they_had(
    persons: Persons, world: World, base: Foundation
) -> None:
    etag = await persons.etag(world.her)
    await persons.ledger.people.DeletePerson(pb.DeletePersonRequest(person_id=world.her, etag=etag))
    async with working(base, make_handlers(base)):
        job = await persons.forget(world.her, await persons.etag(world.her), delete_faces=True)
        stores = stores_of(await persons.ended(job))
    assert (stores["postgres.faces"], stores["postgres.assignments"]) == (7, 0)
    await assert_nothing_left(base, world)


class Killed(BaseException):
    """The worker dies: nobody gives the slice back, nobody says why."""


class DyingRun:
    """A slice whose worker dies right after its first step is committed."""

    def __init__(self, run: SliceRun) -> None:
        self._run = run
        self.slice = run.slice
        self.checkpoint = run.checkpoint

    @asynccontextmanager
    async def step(self) -> AsyncIterator[Any]:
        async with self._run.step() as tx:
            yield tx
        raise Killed


@dataclass(frozen=True, slots=True)
class Dying:
    """A handler that gets one step on each time."""

    handler: JobHandler

    async def run(self, run: SliceRun) -> Json:
        return await self.handler.run(DyingRun(run))  # type: ignore[arg-type]

    async def finish(self, tx: Any, job: Job, results: SliceResults) -> Json:
        return await self.handler.finish(tx, job, results)


async def test_it_survives_the_death_of_its_worker_at_every_step(
    persons: Persons, world: World, base: Foundation
) -> None:
    handlers = make_handlers(base)
    hasty = base.settings.jobs.model_copy(update={"lease_s": 0.3, "heartbeat_s": 0.1})
    dying = SliceExecutor(
        {FORGET_PERSON: Dying(handlers.pop(FORGET_PERSON))}, base.database, base.clock, base.ids, hasty
    )
    job = await persons.forget(world.her, await persons.etag(world.her), delete_faces=True)
    written = False
    deaths = 0
    stages = set()
    async with working(base, handlers):
        while not (await persons.receipt(world.her)).HasField("complete_time"):
            try:
                await dying.run_slice(UUID(job.id), 0)
            except Killed:
                deaths += 1
            async with base.database.transaction() as tx:
                checkpoint = await tx.scalar(select(job_slices.c.checkpoint).where(job_slices.c.job_id == UUID(job.id)))
                stages.add((checkpoint["round"], checkpoint["stage"]))
                if checkpoint["stage"] == "verify" and not written:
                    # Somebody who had begun before says something of her only now: it is found, and goes in another round.
                    written = True
                    answer = {
                        "library_id": "default",
                        "request_id": uuid4(),
                        "request_hash": b"x",
                        "response": world.her.encode(),
                        "created_at": base.clock.now(),
                    }
                    await tx.execute(insert(idempotency_keys), answer)
            await eventually(lambda: is_free(base, job.id))
    assert deaths > 2 * len(STAGES)
    assert {stage for turn, stage in stages if turn == 2} >= set(STAGES)
    assert stores_of(await persons.ended(job))["postgres.faces"] == 7
    await assert_nothing_left(base, world)


async def is_free(base: Foundation, job_id: str) -> bool:
    """Whether nobody holds the job's slice any more."""
    async with base.database.transaction() as tx:
        until = await tx.scalar(select(job_slices.c.lease_until).where(job_slices.c.job_id == UUID(job_id)))
    return until is None or until < base.clock.now()


async def test_while_qdrant_confirms_nothing_there_is_no_receipt(
    persons: Persons, world: World, base: Foundation
) -> None:
    job = await persons.forget(world.her, await persons.etag(world.her), delete_faces=True)
    waits = "points of .* have waited for the relay"

    async def gave_up() -> bool:
        async with base.database.transaction() as tx:
            row = (await tx.rows(select(job_slices).where(job_slices.c.job_id == UUID(job.id))))[0]
        return row.checkpoint.get("stage") == "verify" and row.not_before is not None

    async with working(base, make_handlers(base, stalled_s=0.2), relay=False):
        await eventually(gave_up)
    assert not (await persons.receipt(world.her)).HasField("complete_time"), waits
    async with working(base, make_handlers(base)):
        stores_of(await persons.ended(job))
    await assert_nothing_left(base, world)


async def test_a_job_that_was_cancelled_is_gone_on_with(persons: Persons, world: World, base: Foundation) -> None:
    first = await persons.forget(world.her, await persons.etag(world.her), delete_faces=True)
    await persons.jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=first.id))
    twins = await asyncio.gather(*(persons.forget(world.part) for _ in range(3)))
    (second,) = {job.id for job in twins}
    assert second != first.id
    async with working(base, make_handlers(base)):
        stores_of(await persons.ended(twins[0]))
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(receipts.c.job_id, receipts.c.delete_faces))
    assert {(str(row.job_id), row.delete_faces) for row in rows} == {(second, True)}
    await assert_nothing_left(base, world)


async def test_no_log_says_who_it_was(
    persons: Persons, world: World, base: Foundation, capfd: pytest.CaptureFixture[str]
) -> None:
    async with working(base, make_handlers(base)):
        await persons.ended(await persons.forget(world.her, await persons.etag(world.her)))
    told = "".join(capfd.readouterr())
    assert not any(trace in told for trace in world.traces())
