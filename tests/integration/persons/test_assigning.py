"""AssignmentService and PersonService over real gRPC and PostgreSQL."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from kith.common.v1 import types_pb2
from kith.persons.v1 import assignments_pb2, persons_pb2, prototypes_pb2
from services.persons.domain.assigning import AssignFaces, ExcludeFace, FacesAssigned, assign_faces, exclude_face
from services.persons.domain.merging import MergePersons, merge_persons
from services.persons.domain.model import PersonsDeps
from services.persons.domain.people import CreatePerson, create_person
from shared.caller import Caller
from shared.db.tables_persons import assignments, changes
from shared.db.tables_shared import job_slices, jobs, vector_outbox
from shared.errors import Contention, EtagMismatch, KithError, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.jobs.asking import FOLLOW_PEOPLE
from shared.rpc.channel import translate_errors
from tests.integration.conftest import eventually
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import MACHINE, PersonsClient
from tests.integration.waiting import somebody_waits


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(6))


async def test_assigning_sets_count_cover_dates_prototypes_and_queues_the_face(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna")
    etag = await client.etag(anna)
    async with base.database.transaction() as tx:
        await tx.execute(vector_outbox.delete())
    unset = assignments_pb2.ASSIGNMENT_SOURCE_UNSPECIFIED
    answer = await client.assign(seeded.face_ids[0], anna, unset, confidence=0.0)
    assert answer.assignment.person_id == anna
    assert answer.change_id
    found = await client.get(anna)
    assert (found.face_count, found.cover_face_id) == (1, str(seeded.face_ids[0]))
    assert found.first_seen.ToDatetime().year == 2020
    assert found.etag == etag
    chosen = await client.prototypes.ListPrototypes(prototypes_pb2.ListPrototypesRequest(person_id=anna))
    assert [row.face_id for row in chosen.prototypes] == [str(seeded.face_ids[0])]
    async with base.database.transaction() as tx:
        queued = [row.point_id for row in await tx.rows(select(vector_outbox.c.point_id))]
    assert queued == [seeded.face_ids[0]]


async def test_only_who_loses_a_prototype_is_followed(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna, bert = await client.create("Anna"), await client.create("Bert")
    given = await client.assign(seeded.face_ids[0], anna, MACHINE, confidence=0.9)
    confirmed = await client.assign(seeded.face_ids[0], anna)
    assert confirmed.change_id not in ("", given.change_id)
    assert await read_followed(base) == []
    await client.assign(seeded.face_ids[0], bert, etag=confirmed.assignment.etag)
    assert await read_followed(base) == [anna]


async def read_followed(base: Foundation) -> list[str]:
    """Whose questions are to be looked at."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(job_slices.c.spec).join(jobs).where(jobs.c.kind == FOLLOW_PEOPLE))
    return [person_id for row in rows for person_id in row.spec["person_ids"]]


async def test_of_200_who_give_one_face_to_200_persons_exactly_one_wins(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    deps, caller = PersonsDeps(base.clock, base.ids, base.settings.persons), Caller("test", "test")
    async with base.database.transaction() as tx:
        people = [
            (await create_person(tx, deps, CreatePerson("default", f"Person {index}"), caller)).person
            for index in range(200)
        ]
    outcomes = await asyncio.gather(
        *(client.assign(seeded.face_ids[0], str(person.person_id)) for person in people), return_exceptions=True
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


async def test_an_etag_moves_a_face_and_a_stale_one_does_not(client: PersonsClient, seeded: SeededFaces) -> None:
    anna, bert = await client.create("Anna"), await client.create("Bert")
    first = (await client.assign(seeded.face_ids[0], anna)).assignment
    moved = (await client.assign(seeded.face_ids[0], bert, etag=first.etag)).assignment
    assert moved.person_id == bert
    with pytest.raises(EtagMismatch) as stale:
        await client.assign(seeded.face_ids[0], anna, etag=first.etag)
    assert stale.value.metadata["current_etag"] == moved.etag
    assert (await client.get(anna)).face_count == 0
    assert (await client.get(bert)).face_count == 1


async def test_a_machine_never_replaces_a_human(client: PersonsClient, seeded: SeededFaces) -> None:
    anna, bert = await client.create("Anna"), await client.create("Bert")
    human = (await client.assign(seeded.face_ids[0], anna)).assignment
    with pytest.raises(PreconditionFailed) as refused:
        await client.assign(seeded.face_ids[0], bert, MACHINE, confidence=0.99, etag=human.etag)
    assert refused.value.reason is Reason.FACE_ALREADY_ASSIGNED
    # The other way round a human confirms what a machine did.
    await client.assign(seeded.face_ids[1], anna, MACHINE, confidence=0.9)
    confirmed = (await client.assign(seeded.face_ids[1], anna)).assignment
    assert (confirmed.source, confirmed.confidence) == (assignments_pb2.ASSIGNMENT_SOURCE_HUMAN, 1.0)


async def test_a_retry_with_the_same_request_id_changes_nothing_and_answers_the_same(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna")
    request_id = str(uuid4())
    first = await client.assign(seeded.face_ids[0], anna, request_id=request_id)
    again = await client.assign(seeded.face_ids[0], anna, request_id=request_id)
    assert again == first
    with pytest.raises(KithError) as reused:
        await client.assign(seeded.face_ids[1], anna, request_id=request_id)
    assert reused.value.reason is Reason.REQUEST_ID_REUSED
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(changes.c.kind == "FACES_ASSIGNED")) == 1


async def test_an_excluded_face_cannot_come_back(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna")
    await client.assign(seeded.face_ids[0], anna)
    taken = await client.assignments.UnassignFace(
        assignments_pb2.UnassignFaceRequest(face_id=str(seeded.face_ids[0]), exclude=True)
    )
    assert taken.person_id == anna
    with pytest.raises(PreconditionFailed) as refused:
        await client.assign(seeded.face_ids[0], anna)
    assert refused.value.reason is Reason.FACE_EXCLUDED
    assert (await client.get(anna)).face_count == 0


async def test_a_batch_is_all_or_none_unless_partial(client: PersonsClient, seeded: SeededFaces) -> None:
    anna, bert = await client.create("Anna"), await client.create("Bert")
    await client.assign(seeded.face_ids[0], bert)
    unknown = str(uuid4())
    wanted = [str(seeded.face_ids[0]), str(seeded.face_ids[1]), unknown, str(seeded.face_ids[2])]
    request = assignments_pb2.BatchAssignFacesRequest(person_id=anna, face_ids=wanted)
    with pytest.raises(PreconditionFailed):
        async with translate_errors("persons"):
            await client.assignments.BatchAssignFaces(request)
    assert (await client.get(anna)).face_count == 0
    request.partial = True
    answer = await client.assignments.BatchAssignFaces(request)
    assert {row.face_id for row in answer.assignments} == {wanted[1], wanted[3]}
    assert [(item.id, item.reason) for item in answer.failures] == [
        (wanted[0], "FACE_ALREADY_ASSIGNED"),
        (unknown, "RESOURCE_NOT_FOUND"),
    ]
    assert (await client.get(anna)).face_count == 2


async def test_a_person_of_another_library_is_not_found(client: PersonsClient, seeded: SeededFaces) -> None:
    answer = await client.people.CreatePerson(
        persons_pb2.CreatePersonRequest(library_id="other", person=persons_pb2.Person(name="Anna"))
    )
    with pytest.raises(KithError) as refused:
        await client.assign(seeded.face_ids[0], answer.person.id)
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
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna")
    for face_id in seeded.face_ids:
        await client.assign(face_id, anna)
    await asyncio.gather(
        *(
            client.assignments.UnassignFace(assignments_pb2.UnassignFaceRequest(face_id=str(face_id)))
            for face_id in seeded.face_ids
        )
    )
    found = await client.get(anna)
    assert (found.face_count, found.cover_face_id, found.HasField("first_seen")) == (0, "", False)


async def test_faces_that_change_places_wait_for_each_other_and_both_arrive(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    anna, bert = await client.create("Anna"), await client.create("Bert")
    held = [
        (await client.assign(seeded.face_ids[0], anna)).assignment,
        (await client.assign(seeded.face_ids[1], bert)).assignment,
    ]
    for turn in range(6):
        targets = (bert, anna) if turn % 2 == 0 else (anna, bert)
        moved = await asyncio.gather(
            *(
                client.assign(assignment.face_id, target, etag=assignment.etag)
                for assignment, target in zip(held, targets, strict=True)
            )
        )
        held = [answer.assignment for answer in moved]
        assert [assignment.person_id for assignment in held] == list(targets)


async def test_a_birth_date_gives_the_prototypes_their_eras(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna")
    await client.assign(seeded.face_ids[0], anna)
    birth = types_pb2.Date(year=2000, month=6, day=1)
    await client.people.UpdatePerson(
        persons_pb2.UpdatePersonRequest(person=persons_pb2.Person(id=anna, birth_date=birth))
    )
    chosen = await client.prototypes.ListPrototypes(prototypes_pb2.ListPrototypesRequest(person_id=anna))
    # Born in the middle of 2000, photographed on 1 January 2020: 19 years old.
    assert [row.era for row in chosen.prototypes] == [types_pb2.ERA_TEEN]


async def test_a_source_the_contract_does_not_have_is_refused(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna")
    with pytest.raises(KithError) as refused:
        await client.assign(seeded.face_ids[0], anna, source=assignments_pb2.AssignmentSource.ValueType(99))
    assert refused.value.violations[0].field == "source"
    assert (await client.get(anna)).face_count == 0


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

    async with base.database.transaction() as tx:
        merge = MergePersons("default", anna.person_id, anna.etag, bert.person_id, bert.etag)
        await merge_persons(tx, deps, merge, caller)
        assigning = asyncio.create_task(assign())
        await eventually(lambda: somebody_waits(base))
    with pytest.raises(Contention):
        await assigning
    with pytest.raises(PreconditionFailed) as refused:
        await assign()
    assert refused.value.reason is Reason.FACE_EXCLUDED
