"""What a machine may not assign, though a human may."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, update

from kith.common.v1 import types_pb2
from kith.persons.v1 import assignments_pb2
from services.persons.domain.assigning import AssignFaces, assign_faces
from services.persons.domain.model import Source
from services.persons.domain.people import CreatePerson, create_person
from services.persons.wiring import build_deps
from shared.caller import Caller
from shared.db.tables_detection import assets, faces
from shared.db.tables_shared import job_slices, jobs
from shared.errors import InvalidRequest, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.jobs.asking import ASK_PAIRS
from shared.rpc.channel import translate_errors
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import MACHINE, PersonsClient


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    """Three photos of 1, 2 and 3 January 2020 with two faces each."""
    return await seed_faces(base, random_vectors(6), faces_per_photo=2)


async def read_asked(base: Foundation) -> list[list[object]]:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(job_slices.c.spec).join(jobs).where(jobs.c.kind == ASK_PAIRS))
    return [pair for row in rows for pair in row.spec["pairs"]]


async def test_a_machine_finds_nobody_before_their_birth(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna", birth_date=types_pb2.Date(year=2020, month=1, day=2))
    with pytest.raises(PreconditionFailed) as refused:
        await client.assign(seeded.face_ids[0], anna, MACHINE)
    assert refused.value.reason is Reason.BEFORE_BIRTH
    assert refused.value.metadata == {"face_id": str(seeded.face_ids[0]), "person_id": anna}
    await client.assign(seeded.face_ids[2], anna, MACHINE)
    # A human may: the date may be what is wrong.
    await client.assign(seeded.face_ids[0], anna)


async def test_only_what_is_certain_of_both_dates_forbids(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna", birth_date=types_pb2.Date(year=2020))
    bert = await client.create("Bert", birth_date=types_pb2.Date(year=2020, month=3))
    await client.assign(seeded.face_ids[0], anna, MACHINE)
    async with base.database.transaction() as tx:
        photo = assets.c.asset_id == seeded.asset_ids[2]
        await tx.execute(update(assets).where(photo).values(captured_precision="YEAR"))
        unknown = {"captured_at": None, "captured_precision": None}
        await tx.execute(update(assets).where(assets.c.asset_id == seeded.asset_ids[4]).values(**unknown))
    with pytest.raises(PreconditionFailed):
        await client.assign(seeded.face_ids[1], bert, MACHINE)
    await client.assign(seeded.face_ids[2], bert, MACHINE)
    await client.assign(seeded.face_ids[4], bert, MACHINE)


async def test_a_machine_gives_nobody_a_second_face_in_a_photo(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna")
    await client.assign(seeded.face_ids[0], anna)
    with pytest.raises(PreconditionFailed) as refused:
        await client.assign(seeded.face_ids[1], anna, MACHINE)
    assert refused.value.reason is Reason.SAME_PHOTO_DOUBLE
    assert refused.value.metadata == {
        "face_id": str(seeded.face_ids[1]),
        "person_id": anna,
        "other_face_id": str(seeded.face_ids[0]),
    }
    # A human may, and what is theirs already is no double of itself.
    await client.assign(seeded.face_ids[1], anna)
    assert (await client.assign(seeded.face_ids[1], anna, MACHINE)).change_id == ""


async def test_a_photo_with_a_mirror_may_show_one_person_twice(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna")
    request = assignments_pb2.AllowDoublesRequest(asset_ids=[seeded.asset_ids[0]], allowed=True)
    await client.assignments.AllowDoubles(request)
    both = await client.assign_all(seeded.face_ids[:2], anna, source=MACHINE, partial=False)
    assert len(both.assignments) == 2
    with pytest.raises(PreconditionFailed):
        await client.assign_all(seeded.face_ids[2:4], anna, source=MACHINE, partial=False)


async def test_of_faces_given_together_the_first_in_order_counts_and_the_other_is_asked(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna", birth_date=types_pb2.Date(year=2020, month=1, day=2))
    order = [seeded.face_ids[index] for index in (3, 2, 1, 4)]
    with pytest.raises(PreconditionFailed) as refused:
        await client.assign_all(order, anna, source=MACHINE, partial=False)
    assert refused.value.metadata["other_face_id"] == str(seeded.face_ids[3])
    assert await read_asked(base) == []
    answer = await client.assign_all(order, anna, source=MACHINE, partial=True)
    assert {row.face_id for row in answer.assignments} == {str(seeded.face_ids[3]), str(seeded.face_ids[4])}
    assert [(item.id, item.reason) for item in answer.failures] == [
        (str(seeded.face_ids[2]), "SAME_PHOTO_DOUBLE"),
        (str(seeded.face_ids[1]), "BEFORE_BIRTH"),
    ]
    assert await read_asked(base) == [[str(seeded.face_ids[2]), anna, 0.75]]


async def test_a_double_is_asked_even_where_nothing_can_be_assigned(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna")
    await client.assign(seeded.face_ids[0], anna)
    answer = await client.assign_all([seeded.face_ids[1]], anna, source=MACHINE, partial=True)
    assert (answer.change_id, len(answer.failures)) == ("", 1)
    assert await read_asked(base) == [[str(seeded.face_ids[1]), anna, 0.75]]


async def test_a_dry_run_of_a_batch_changes_and_asks_nothing(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna")
    answer = await client.assign_all(seeded.face_ids, anna, source=MACHINE, partial=True, dry_run=True)
    assert (len(answer.assignments), len(answer.failures), answer.change_id) == (3, 3, "")
    assert await read_asked(base) == []
    assert (await client.get(anna)).face_count == 0


@pytest.mark.parametrize("state", ["IGNORED", "NOT_A_FACE"])
async def test_a_machine_assigns_nothing_that_was_put_aside_or_excluded(
    client: PersonsClient, seeded: SeededFaces, base: Foundation, state: str
) -> None:
    anna = await client.create("Anna")
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == seeded.face_ids[0]).values(state=state))
    await client.exclude(seeded.face_ids[2], anna)
    answer = await client.assign_all(seeded.face_ids, anna, source=MACHINE, partial=True)
    assert [(item.id, item.reason) for item in answer.failures][:2] == [
        (str(seeded.face_ids[0]), "FACE_NOT_ACTIVE"),
        (str(seeded.face_ids[2]), "FACE_EXCLUDED"),
    ]
    # Neither counts as a face of hers in its photo.
    assert {row.face_id for row in answer.assignments} == {str(seeded.face_ids[index]) for index in (1, 3, 4)}


async def test_of_two_machines_that_see_one_person_twice_in_a_photo_one_wins(
    client: PersonsClient, base: Foundation
) -> None:
    seeded = await seed_faces(base, random_vectors(24), faces_per_photo=2)
    anna = await client.create("Anna")
    outcomes = await asyncio.gather(
        *(client.assign(face_id, anna, MACHINE) for face_id in seeded.face_ids),
        return_exceptions=True,
    )
    won = [not isinstance(outcome, BaseException) for outcome in outcomes]
    assert [first + second for first, second in zip(won[::2], won[1::2], strict=True)] == [1] * 12
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {error.reason for error in refused if isinstance(error, PreconditionFailed)} == {Reason.SAME_PHOTO_DOUBLE}


async def test_the_rules_cost_one_statement_and_a_human_pays_none(base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(200), faces_per_photo=2)
    deps, caller = build_deps(base), Caller("test", "test")

    async def count(at: int, size: int, source: Source) -> int:
        async with base.database.transaction() as tx:
            person = (await create_person(tx, deps, CreatePerson("default", "Anna"), caller)).person
        # One face of each photo.
        face_ids = seeded.face_ids[at : at + 2 * size : 2]
        command = AssignFaces("default", face_ids, person.person_id, source=source)
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                assert len((await assign_faces(tx, deps, command, caller)).assignments) == size
        return len(sent)

    human = await count(0, 40, Source.HUMAN)
    assert await count(80, 40, Source.MACHINE) == human + 1
    assert await count(1, 70, Source.MACHINE) == human + 1


async def test_each_face_of_a_machine_may_be_as_sure_as_it_is(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna")
    request = assignments_pb2.BatchAssignFacesRequest(
        face_ids=[str(seeded.face_ids[row]) for row in (0, 2, 3)],
        person_id=anna,
        source=MACHINE,
        confidences=[0.999, 0.996, 0.998],
        partial=True,
    )
    made = await client.assignments.BatchAssignFaces(request)
    assert [each.confidence for each in made.assignments] == pytest.approx([0.999, 0.996])
    # The second of a photo is asked, as sure as it was.
    assert await read_asked(base) == [[str(seeded.face_ids[3]), anna, pytest.approx(0.998)]]


@pytest.mark.parametrize("confidences", [[0.9], [0.9, 0.8, 0.7], [0.9, 1.1], [float("nan"), 0.9]])
async def test_confidences_are_one_of_each_face(
    client: PersonsClient, seeded: SeededFaces, confidences: list[float]
) -> None:
    request = assignments_pb2.BatchAssignFacesRequest(
        face_ids=[str(face_id) for face_id in seeded.face_ids[:2]],
        person_id=await client.create("Anna"),
        source=MACHINE,
        confidences=confidences,
    )
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("persons"):
            await client.assignments.BatchAssignFaces(request)
    assert [violation.field for violation in refused.value.violations] == ["confidences"]
