"""AssignmentService and PersonService over real gRPC and PostgreSQL."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import grpc
import pytest
from sqlalchemy import func, select, text

from kith.common.v1 import types_pb2
from kith.persons.v1 import (
    assignments_pb2,
    assignments_pb2_grpc,
    persons_pb2,
    persons_pb2_grpc,
    prototypes_pb2,
    prototypes_pb2_grpc,
)
from services.persons.domain.assigning import AssignFaces, ExcludeFace, FacesAssigned, assign_faces, exclude_face
from services.persons.domain.merging import MergePersons, merge_persons
from services.persons.domain.model import PersonsDeps
from services.persons.domain.people import CreatePerson, create_person
from services.persons.server import start
from shared.caller import Caller
from shared.db.tables_persons import assignments, changes
from shared.db.tables_shared import job_slices, jobs, vector_outbox
from shared.errors import Contention, EtagMismatch, KithError, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.jobs.asking import FOLLOW_PEOPLE
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running, eventually
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces, random_vectors, seed_faces


class Persons:
    """The stubs of the persons server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.people = persons_pb2_grpc.PersonServiceStub(channel)
        self.assignments = assignments_pb2_grpc.AssignmentServiceStub(channel)
        self.prototypes = prototypes_pb2_grpc.PrototypeServiceStub(channel)

    async def create(self, name: str) -> persons_pb2.Person:
        answer = await self.people.CreatePerson(
            persons_pb2.CreatePersonRequest(person=persons_pb2.Person(name=name), request_id=str(uuid4()))
        )
        return answer.person

    async def get(self, person_id: str) -> persons_pb2.Person:
        return (await self.people.GetPerson(persons_pb2.GetPersonRequest(person_id=person_id))).person

    async def assign(
        self,
        face_id: object,
        person_id: str,
        *,
        source: assignments_pb2.AssignmentSource.ValueType = assignments_pb2.ASSIGNMENT_SOURCE_UNSPECIFIED,
        confidence: float = 0.0,
        etag: str = "",
        request_id: str = "",
    ) -> assignments_pb2.AssignFaceResponse:
        async with translate_errors("persons"):
            return await self.assignments.AssignFace(
                assignments_pb2.AssignFaceRequest(
                    face_id=str(face_id),
                    person_id=person_id,
                    source=source,
                    confidence=confidence,
                    etag=etag,
                    request_id=request_id,
                )
            )


@pytest.fixture
async def persons(running: Running) -> Persons:
    return Persons(await running.server("persons", start))


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(6))


async def test_assigning_sets_count_cover_dates_prototypes_and_queues_the_face(
    persons: Persons, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await persons.create("Anna")
    async with base.database.transaction() as tx:
        await tx.execute(vector_outbox.delete())
    answer = await persons.assign(seeded.face_ids[0], anna.id)
    assert answer.assignment.person_id == anna.id
    assert answer.change_id
    found = await persons.get(anna.id)
    assert (found.face_count, found.cover_face_id) == (1, str(seeded.face_ids[0]))
    assert found.first_seen.ToDatetime().year == 2020
    assert found.etag == anna.etag
    chosen = await persons.prototypes.ListPrototypes(prototypes_pb2.ListPrototypesRequest(person_id=anna.id))
    assert [row.face_id for row in chosen.prototypes] == [str(seeded.face_ids[0])]
    async with base.database.transaction() as tx:
        queued = [row.point_id for row in await tx.rows(select(vector_outbox.c.point_id))]
    assert queued == [seeded.face_ids[0]]


async def test_only_who_loses_a_prototype_is_followed(persons: Persons, seeded: SeededFaces, base: Foundation) -> None:
    anna, bert = await persons.create("Anna"), await persons.create("Bert")
    machine = assignments_pb2.ASSIGNMENT_SOURCE_MACHINE
    given = await persons.assign(seeded.face_ids[0], anna.id, source=machine, confidence=0.9)
    confirmed = await persons.assign(seeded.face_ids[0], anna.id)
    assert confirmed.change_id not in ("", given.change_id)
    assert await read_followed(base) == []
    await persons.assign(seeded.face_ids[0], bert.id, etag=confirmed.assignment.etag)
    assert await read_followed(base) == [anna.id]


async def read_followed(base: Foundation) -> list[str]:
    """Whose questions are to be looked at."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(job_slices.c.spec).join(jobs).where(jobs.c.kind == FOLLOW_PEOPLE))
    return [person_id for row in rows for person_id in row.spec["person_ids"]]


async def test_of_200_who_give_one_face_to_200_persons_exactly_one_wins(
    persons: Persons, seeded: SeededFaces, base: Foundation
) -> None:
    deps, caller = PersonsDeps(base.clock, base.ids, base.settings.persons), Caller("test", "test")
    async with base.database.transaction() as tx:
        people = [
            (await create_person(tx, deps, CreatePerson("default", f"Person {index}"), caller)).person
            for index in range(200)
        ]
    outcomes = await asyncio.gather(
        *(persons.assign(seeded.face_ids[0], str(person.person_id)) for person in people), return_exceptions=True
    )
    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert (len(won), len(refused)) == (1, 199)
    assert all(isinstance(error, PreconditionFailed) for error in refused)
    assert {error.reason for error in refused if isinstance(error, KithError)} == {Reason.FACE_ALREADY_ASSIGNED}
    told = {(error.metadata["person_id"], error.metadata["etag"]) for error in refused if isinstance(error, KithError)}
    assert told == {(won[0].assignment.person_id, won[0].assignment.etag)}
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(assignments)) == 1
        entered = await tx.rows(select(changes).where(changes.c.kind == "FACES_ASSIGNED"))
    assert [str(row.change_id) for row in entered] == [won[0].change_id]


async def test_an_etag_moves_a_face_and_a_stale_one_does_not(persons: Persons, seeded: SeededFaces) -> None:
    anna, bert = await persons.create("Anna"), await persons.create("Bert")
    first = (await persons.assign(seeded.face_ids[0], anna.id)).assignment
    moved = (await persons.assign(seeded.face_ids[0], bert.id, etag=first.etag)).assignment
    assert moved.person_id == bert.id
    with pytest.raises(EtagMismatch) as stale:
        await persons.assign(seeded.face_ids[0], anna.id, etag=first.etag)
    assert stale.value.metadata["current_etag"] == moved.etag
    assert (await persons.get(anna.id)).face_count == 0
    assert (await persons.get(bert.id)).face_count == 1


async def test_a_machine_never_replaces_a_human(persons: Persons, seeded: SeededFaces) -> None:
    anna, bert = await persons.create("Anna"), await persons.create("Bert")
    machine = assignments_pb2.ASSIGNMENT_SOURCE_MACHINE
    human = (await persons.assign(seeded.face_ids[0], anna.id)).assignment
    with pytest.raises(PreconditionFailed) as refused:
        await persons.assign(seeded.face_ids[0], bert.id, source=machine, confidence=0.99, etag=human.etag)
    assert refused.value.reason is Reason.FACE_ALREADY_ASSIGNED
    # The other way round a human confirms what a machine did.
    await persons.assign(seeded.face_ids[1], anna.id, source=machine, confidence=0.9)
    confirmed = (await persons.assign(seeded.face_ids[1], anna.id)).assignment
    assert (confirmed.source, confirmed.confidence) == (assignments_pb2.ASSIGNMENT_SOURCE_HUMAN, 1.0)


async def test_a_retry_with_the_same_request_id_changes_nothing_and_answers_the_same(
    persons: Persons, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await persons.create("Anna")
    request_id = str(uuid4())
    first = await persons.assign(seeded.face_ids[0], anna.id, request_id=request_id)
    again = await persons.assign(seeded.face_ids[0], anna.id, request_id=request_id)
    assert again == first
    with pytest.raises(KithError) as reused:
        await persons.assign(seeded.face_ids[1], anna.id, request_id=request_id)
    assert reused.value.reason is Reason.REQUEST_ID_REUSED
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(changes.c.kind == "FACES_ASSIGNED")) == 1


async def test_an_excluded_face_cannot_come_back(persons: Persons, seeded: SeededFaces) -> None:
    anna = await persons.create("Anna")
    await persons.assign(seeded.face_ids[0], anna.id)
    taken = await persons.assignments.UnassignFace(
        assignments_pb2.UnassignFaceRequest(face_id=str(seeded.face_ids[0]), exclude=True)
    )
    assert taken.person_id == anna.id
    with pytest.raises(PreconditionFailed) as refused:
        await persons.assign(seeded.face_ids[0], anna.id)
    assert refused.value.reason is Reason.FACE_EXCLUDED
    assert (await persons.get(anna.id)).face_count == 0


async def test_a_batch_is_all_or_none_unless_partial(persons: Persons, seeded: SeededFaces) -> None:
    anna, bert = await persons.create("Anna"), await persons.create("Bert")
    await persons.assign(seeded.face_ids[0], bert.id)
    unknown = str(uuid4())
    wanted = [str(seeded.face_ids[0]), str(seeded.face_ids[1]), unknown, str(seeded.face_ids[2])]
    request = assignments_pb2.BatchAssignFacesRequest(person_id=anna.id, face_ids=wanted)
    with pytest.raises(PreconditionFailed):
        async with translate_errors("persons"):
            await persons.assignments.BatchAssignFaces(request)
    assert (await persons.get(anna.id)).face_count == 0
    request.partial = True
    answer = await persons.assignments.BatchAssignFaces(request)
    assert {row.face_id for row in answer.assignments} == {wanted[1], wanted[3]}
    assert [(item.id, item.reason) for item in answer.failures] == [
        (wanted[0], "FACE_ALREADY_ASSIGNED"),
        (unknown, "RESOURCE_NOT_FOUND"),
    ]
    assert (await persons.get(anna.id)).face_count == 2


async def test_a_person_of_another_library_is_not_found(persons: Persons, seeded: SeededFaces) -> None:
    answer = await persons.people.CreatePerson(
        persons_pb2.CreatePersonRequest(library_id="other", person=persons_pb2.Person(name="Anna"))
    )
    with pytest.raises(KithError) as refused:
        await persons.assign(seeded.face_ids[0], answer.person.id)
    assert refused.value.reason is Reason.RESOURCE_NOT_FOUND


async def test_a_batch_costs_the_same_statements_whatever_its_size(base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(100))
    deps = PersonsDeps(base.clock, base.ids, base.settings.persons)
    caller = Caller("test", "test")
    counts = []
    for start_at, size in ((0, 40), (40, 60)):
        async with base.database.transaction() as tx:
            person = (await create_person(tx, deps, CreatePerson("default", f"Person {size}"), caller)).person
        command = AssignFaces("default", seeded.face_ids[start_at : start_at + size], person.person_id)
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                made = await assign_faces(tx, deps, command, caller)
        assert len(made.assignments) == size
        counts.append(len(sent))
    assert counts[0] == counts[1] <= 16


async def test_faces_taken_at_the_same_moment_leave_the_summary_right(
    persons: Persons, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await persons.create("Anna")
    for face_id in seeded.face_ids:
        await persons.assign(face_id, anna.id)
    await asyncio.gather(
        *(
            persons.assignments.UnassignFace(assignments_pb2.UnassignFaceRequest(face_id=str(face_id)))
            for face_id in seeded.face_ids
        )
    )
    found = await persons.get(anna.id)
    assert (found.face_count, found.cover_face_id, found.HasField("first_seen")) == (0, "", False)


async def test_faces_that_change_places_wait_for_each_other_and_both_arrive(
    persons: Persons, seeded: SeededFaces
) -> None:
    anna, bert = await persons.create("Anna"), await persons.create("Bert")
    held = [
        (await persons.assign(seeded.face_ids[0], anna.id)).assignment,
        (await persons.assign(seeded.face_ids[1], bert.id)).assignment,
    ]
    for turn in range(6):
        targets = (bert.id, anna.id) if turn % 2 == 0 else (anna.id, bert.id)
        moved = await asyncio.gather(
            *(
                persons.assign(assignment.face_id, target, etag=assignment.etag)
                for assignment, target in zip(held, targets, strict=True)
            )
        )
        held = [answer.assignment for answer in moved]
        assert [assignment.person_id for assignment in held] == list(targets)


async def test_a_birth_date_gives_the_prototypes_their_eras(persons: Persons, seeded: SeededFaces) -> None:
    anna = await persons.create("Anna")
    await persons.assign(seeded.face_ids[0], anna.id)
    birth = types_pb2.Date(year=2000, month=6, day=1)
    await persons.people.UpdatePerson(
        persons_pb2.UpdatePersonRequest(person=persons_pb2.Person(id=anna.id, birth_date=birth))
    )
    chosen = await persons.prototypes.ListPrototypes(prototypes_pb2.ListPrototypesRequest(person_id=anna.id))
    # Born in the middle of 2000, photographed on 1 January 2020: 19 years old.
    assert [row.era for row in chosen.prototypes] == [types_pb2.ERA_TEEN]


async def test_a_source_the_contract_does_not_have_is_refused(persons: Persons, seeded: SeededFaces) -> None:
    anna = await persons.create("Anna")
    with pytest.raises(KithError) as refused:
        await persons.assign(seeded.face_ids[0], anna.id, source=assignments_pb2.AssignmentSource.ValueType(99))
    assert refused.value.violations[0].field == "source"
    assert (await persons.get(anna.id)).face_count == 0


async def test_an_exclusion_that_a_merge_brings_while_one_waits_is_heeded(base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(1))
    deps, caller = PersonsDeps(base.clock, base.ids, base.settings.persons), Caller("test", "test")
    async with base.database.transaction() as tx:
        anna, bert = [
            (await create_person(tx, deps, CreatePerson("default", name), caller)).person for name in ("Anna", "Bert")
        ]
        await exclude_face(tx, deps, ExcludeFace("default", seeded.face_ids[0], bert.person_id), caller)
    command = AssignFaces("default", seeded.face_ids, anna.person_id)

    async def assign() -> FacesAssigned:
        async with base.database.transaction() as tx:
            return await assign_faces(tx, deps, command, caller)

    async def waits() -> bool:
        async with base.database.transaction() as tx:
            return bool(await tx.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    async with base.database.transaction() as tx:
        merge = MergePersons("default", anna.person_id, anna.etag, bert.person_id, bert.etag)
        await merge_persons(tx, deps, merge, caller)
        assigning = asyncio.create_task(assign())
        await eventually(waits)
    with pytest.raises(Contention):
        await assigning
    with pytest.raises(PreconditionFailed) as refused:
        await assign()
    assert refused.value.reason is Reason.FACE_EXCLUDED
