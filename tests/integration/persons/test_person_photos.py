"""RemovePersonPhotos and MovePersonPhotos."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from kith.persons.v1 import changes_pb2, persons_pb2
from services.persons.domain.assigning import AssignFaces, assign_faces
from services.persons.domain.people import CreatePerson, create_person
from services.persons.domain.photos import MovePhotos, RemovePhotos, move_photos, remove_photos
from services.persons.wiring import build_deps
from shared.caller import Caller
from shared.db.tables_persons import assignments, changes, persons, prototypes
from shared.db.tables_shared import job_slices, jobs
from shared.errors import InvalidRequest, KithError, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.jobs.asking import FOLLOW_PEOPLE
from shared.rpc.channel import translate_errors
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import MACHINE, PersonsClient


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    """Four photos with two faces each."""
    return await seed_faces(base, random_vectors(8), faces_per_photo=2)


async def remove(client: PersonsClient, **fields: Any) -> persons_pb2.RemovePersonPhotosResponse:
    async with translate_errors("persons"):
        return await client.people.RemovePersonPhotos(persons_pb2.RemovePersonPhotosRequest(**fields))


async def move(client: PersonsClient, **fields: Any) -> persons_pb2.MovePersonPhotosResponse:
    async with translate_errors("persons"):
        return await client.people.MovePersonPhotos(persons_pb2.MovePersonPhotosRequest(**fields))


async def read_holders(base: Foundation) -> dict[UUID, str]:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(assignments.c.face_id, assignments.c.person_id))
    return {row.face_id: str(row.person_id) for row in rows}


async def test_removing_photos_takes_that_persons_faces_in_them_and_no_others(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    faces = seeded.face_ids
    anna = await client.create("Anna", [faces[0], faces[2], faces[3], faces[4]])
    bert = await client.create("Bert", [faces[1]])
    photos = [seeded.asset_ids[0], seeded.asset_ids[2], seeded.asset_ids[6]]
    tried = await remove(client, person_id=anna, asset_ids=photos, dry_run=True)
    assert (tried.faces_unassigned, tried.change_id) == (3, "")
    assert (await client.get(anna)).face_count == 4
    answer = await remove(client, person_id=anna, asset_ids=photos)
    assert answer.faces_unassigned == 3
    assert await read_holders(base) == {faces[1]: bert, faces[4]: anna}
    assert (await client.get(anna)).face_count == 1
    change = await client.get_change(answer.change_id)
    assert (change.kind, change.face_count) == (changes_pb2.CHANGE_KIND_FACES_UNASSIGNED, 3)
    again = await remove(client, person_id=anna, asset_ids=photos)
    assert (again.faces_unassigned, again.change_id) == (0, "")


async def test_moved_photos_are_a_humans_word_and_their_prototypes_are_chosen_anew(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    faces = seeded.face_ids
    anna = await client.create("Anna", [faces[0]])
    bert = await client.create("Bert")
    await client.assign(faces[2], anna, MACHINE)
    answer = await move(
        client,
        person_id=anna,
        asset_ids=[seeded.asset_ids[2]],
        target_person_id=bert,
        request_id=str(uuid4()),
    )
    assert (answer.target_person_id, answer.faces_moved, answer.target_created) == (bert, 1, False)
    async with base.database.transaction() as tx:
        moved = await tx.one_or_none(select(assignments).where(assignments.c.face_id == faces[2]))
        chosen = {row.face_id: str(row.person_id) for row in await tx.rows(select(prototypes))}
        followed = await tx.rows(select(job_slices.c.spec).join(jobs).where(jobs.c.kind == FOLLOW_PEOPLE))
    assert moved is not None
    assert (str(moved.person_id), moved.source, moved.confidence, moved.choice) == (bert, "HUMAN", 1.0, None)
    assert chosen == {faces[0]: anna, faces[2]: bert}
    assert [row.spec["person_ids"] for row in followed] == [[anna]]
    assert ((await client.get(anna)).face_count, (await client.get(bert)).face_count) == (1, 1)


async def test_a_name_finds_the_person_with_the_most_faces_whatever_its_case_and_form(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    faces = seeded.face_ids
    anna = await client.create("Anna", faces[:2])
    await client.create("Zoë")
    zoe = await client.create("ZOË", [faces[4]])
    answer = await move(
        client, person_id=anna, asset_ids=[seeded.asset_ids[0]], target_person_name=" zoe\N{COMBINING DIAERESIS} "
    )
    assert (answer.target_person_id, answer.target_created, answer.faces_moved) == (zoe, False, 2)


async def test_a_name_nobody_has_makes_a_person_and_one_undo_takes_back_both(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna", seeded.face_ids[:4])
    fields: dict[str, Any] = {
        "person_id": anna,
        "asset_ids": [seeded.asset_ids[0]],
        "target_person_name": " Bert  the Second",
    }
    tried = await move(client, **fields, dry_run=True)
    assert (tried.target_person_id, tried.target_created, tried.faces_moved) == ("", True, 2)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(persons)) == 1
    answer = await move(client, **fields)
    assert (answer.target_created, answer.faces_moved) == (True, 2)
    made = await client.get(answer.target_person_id)
    assert (made.name, made.face_count) == ("Bert the Second", 2)
    change = await client.get_change(answer.change_id)
    assert change.kind == changes_pb2.CHANGE_KIND_FACES_ASSIGNED
    assert sorted(change.person_ids) == sorted([anna, made.id])
    undone = await client.undo(answer.change_id)
    assert not undone.skipped
    assert (await client.get(made.id)).HasField("delete_time")
    assert (await client.get(anna)).face_count == 4


async def test_nobody_is_created_where_nothing_moves(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna")
    answer = await move(client, person_id=anna, asset_ids=[seeded.asset_ids[0]], target_person_name="Bert")
    assert answer == persons_pb2.MovePersonPhotosResponse()
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(persons)) == 1


async def test_faces_that_are_excluded_from_the_target_stay_and_are_named(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    faces = seeded.face_ids
    anna, bert = await client.create("Anna", faces[:2]), await client.create("Bert")
    await client.exclude(faces[0], bert)
    answer = await move(client, person_id=anna, asset_ids=[seeded.asset_ids[0]], target_person_id=bert)
    assert [(item.id, item.reason) for item in answer.failures] == [(str(faces[0]), "FACE_EXCLUDED")]
    assert await read_holders(base) == {faces[0]: anna, faces[1]: bert}


async def test_what_cannot_be_is_refused_by_name(client: PersonsClient, seeded: SeededFaces) -> None:
    anna, bert = await client.create("Anna", seeded.face_ids[:2]), await client.create("Bert")
    photos = seeded.asset_ids[:1]
    for fields, field in (
        ({"target_person_id": anna}, "target_person_id"),
        ({"target_person_name": "ANNA"}, "target_person_name"),
        ({"target_person_name": " \t"}, "target_person_name"),
        ({}, "target_person_id"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await move(client, person_id=anna, asset_ids=photos, **fields)
        assert refused.value.violations[0].field == field
    with pytest.raises(NotFound) as unknown:
        await move(client, person_id=anna, asset_ids=[*photos, "nowhere", "nor here"], target_person_id=bert)
    assert [violation.field for violation in unknown.value.violations] == ["asset_ids[1]", "asset_ids[2]"]
    for person_id, target in ((anna, str(uuid4())), (str(uuid4()), bert)):
        with pytest.raises(NotFound):
            await move(client, person_id=person_id, asset_ids=photos, target_person_id=target)
    with pytest.raises(InvalidRequest):
        await remove(client, person_id=anna, asset_ids=[])


async def test_a_merged_target_is_not_active_and_says_who_it_is_part_of(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    anna, bert, carl = [await client.create(name) for name in ("Anna", "Bert", "Carl")]
    await client.assign(seeded.face_ids[0], anna)
    await client.merge(carl, bert)
    with pytest.raises(PreconditionFailed) as refused:
        await move(client, person_id=anna, asset_ids=seeded.asset_ids[:1], target_person_id=bert)
    assert refused.value.reason is Reason.PERSON_NOT_ACTIVE
    assert refused.value.metadata["merged_into"] == carl
    with pytest.raises(PreconditionFailed):
        await remove(client, person_id=bert, asset_ids=seeded.asset_ids[:1])


async def test_many_moves_of_the_same_photos_to_one_new_name_make_one_person_and_one_change(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna = await client.create("Anna", seeded.face_ids)
    outcomes = await asyncio.gather(
        *(
            move(client, person_id=anna, asset_ids=seeded.asset_ids[::step], target_person_name="Bert")
            for step in (1, -1) * 6
        )
    )
    assert sum(answer.target_created for answer in outcomes) == 1
    assert sum(answer.faces_moved for answer in outcomes) == len(seeded.face_ids)
    assert len({answer.target_person_id for answer in outcomes}) == 1
    holders = await read_holders(base)
    assert set(holders) == set(seeded.face_ids)
    assert len(set(holders.values())) == 1
    async with base.database.transaction() as tx:
        moved = changes.c.rpc == "kith.persons.v1.MovePersonPhotos"
        assert await tx.scalar(select(func.count()).where(moved)) == 1


async def test_moves_between_two_people_at_once_lose_and_double_nothing(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna, bert = await client.create("Anna", seeded.face_ids[:4]), await client.create("Bert", seeded.face_ids[4:])
    photos = sorted(set(seeded.asset_ids))
    for _ in range(3):
        await asyncio.gather(
            move(client, person_id=anna, asset_ids=photos, target_person_id=bert),
            move(client, person_id=bert, asset_ids=photos, target_person_id=anna),
            move(client, person_id=anna, asset_ids=photos, target_person_name="Bert"),
        )
        holders = list((await read_holders(base)).values())
        assert len(holders) == 8
        assert (await client.get(anna)).face_count == holders.count(anna)
        assert (await client.get(bert)).face_count == holders.count(bert)


async def test_the_statements_do_not_grow_with_the_faces(base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(120), faces_per_photo=2)
    deps, caller = build_deps(base), Caller("test", "test")
    counts: list[list[int]] = []
    for at, size in ((0, 40), (40, 80)):
        photos = seeded.asset_ids[at : at + size]
        async with base.database.transaction() as tx:
            person = (await create_person(tx, deps, CreatePerson("default", f"Person {size}"), caller)).person
            faces = seeded.face_ids[at : at + size]
            await assign_faces(tx, deps, AssignFaces("default", faces, person.person_id), caller)
        sent_by = []
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                command = MovePhotos("default", person.person_id, sorted(set(photos)), None, f"Other {size}")
                moved = await move_photos(tx, deps, command, caller)
        assert (moved.faces_moved, moved.target_created, moved.target_id is None) == (size, True, False)
        sent_by.append(len(sent))
        assert moved.target_id is not None
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                removing = RemovePhotos("default", moved.target_id, sorted(set(photos)))
                assert (await remove_photos(tx, deps, removing, caller)).faces_unassigned == size
        sent_by.append(len(sent))
        counts.append(sent_by)
    assert counts[0] == counts[1]


async def test_a_retry_answers_the_same(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna", seeded.face_ids[:2])
    fields: dict[str, Any] = {
        "person_id": anna,
        "asset_ids": seeded.asset_ids[:1],
        "target_person_name": "Bert",
        "request_id": str(uuid4()),
    }
    assert await move(client, **fields) == await move(client, **fields)
    with pytest.raises(KithError) as reused:
        await move(client, **{**fields, "target_person_name": "Carl"})
    assert reused.value.reason is Reason.REQUEST_ID_REUSED
