"""Faces are held against everybody who is there, hidden persons too, and against nobody who was merged or deleted."""

from __future__ import annotations

from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from sqlalchemy import update

from kith.suggestions.v1 import suggestions_pb2 as pb
from shared.db.tables_detection import faces as face_table
from shared.db.tables_persons import exclusions, persons
from shared.errors import PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.suggestions.album import People, Person, draw_people, seed_library
from tests.integration.suggestions.conftest import Questions, summarise
from tests.integration.suggestions.world import World, make_world


@pytest.fixture
async def world(base: Foundation, people: People, stack: AsyncExitStack) -> World:
    """Four faces like each person in turn, two of them theirs: Anna's 0..3, Bert's 4..7, Cleo's 8..11."""
    made = await make_world(base, people, stack, await seed_library(base, draw_people(3, 4)))
    for number, person in enumerate((made.anna, made.bert, made.cleo)):
        await people.assign(person, made.faces.face_ids[4 * number : 4 * number + 2])
    return made


async def asked(world: World, questions: Questions) -> dict[int, UUID]:
    """Whom each face may be, by the face's number."""
    found = summarise(await questions.list())
    return {row: found[face_id] for row, face_id in enumerate(world.faces.face_ids) if face_id in found}


async def hide(base: Foundation, person: Person) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).where(persons.c.person_id == person.person_id).values(status="HIDDEN"))


async def test_a_merged_persons_faces_are_found_for_whom_they_became_part_of(
    questions: Questions, world: World
) -> None:
    await world.merge(world.anna, world.bert)
    await questions.find_more()
    bert, cleo = world.bert.person_id, world.cleo.person_id
    assert await asked(world, questions) == {2: bert, 3: bert, 6: bert, 7: bert, 10: cleo, 11: cleo}
    with pytest.raises(PreconditionFailed) as refused:
        await questions.find_more(world.anna)
    assert refused.value.reason is Reason.PERSON_NOT_ACTIVE


async def test_a_deleted_person_is_matched_by_nobodys_face(questions: Questions, world: World) -> None:
    await world.delete(world.anna)
    await questions.find_more()
    assert sorted(await asked(world, questions)) == [6, 7, 10, 11]
    assert {each.evidence.runner_up_person_id for each in await questions.list()} == {
        str(world.bert.person_id),
        str(world.cleo.person_id),
    }
    with pytest.raises(PreconditionFailed):
        await questions.find_more(world.anna)


async def test_a_hidden_person_is_matched_and_asked_about_by_name_only(
    base: Foundation, questions: Questions, world: World
) -> None:
    await hide(base, world.anna)
    await questions.find_more()
    assert sorted(await asked(world, questions)) == [6, 7, 10, 11]
    rivals = {each.evidence.runner_up_person_id for each in await questions.list()}
    assert str(world.anna.person_id) in rivals
    await questions.find_more(world.anna)
    assert sorted(await asked(world, questions)) == [2, 3, 6, 7, 10, 11]


async def test_what_was_rejected_for_a_part_is_never_asked_for_the_whole(
    base: Foundation, questions: Questions, world: World
) -> None:
    await questions.find_more(world.anna)
    (no,) = [each.id for each in await questions.list(face_id=str(world.faces.face_ids[2]))]
    await questions.reject(no)
    await world.merge(world.anna, world.bert)
    await world.follow(world.anna, world.bert)
    for _ in range(2):
        await questions.find_more(world.bert)
        assert sorted(await asked(world, questions)) == [3, 6, 7]
    assert (await questions.get(no)).state == pb.SUGGESTION_STATE_REJECTED
    await world.part(world.anna, [0, 1])
    async with base.database.transaction() as tx:
        await tx.execute(update(exclusions).values(person_id=world.anna.person_id))
    await world.follow(world.anna, world.bert)
    await questions.find_more()
    assert 2 not in await asked(world, questions)


async def test_a_pair_a_machine_may_not_assign_is_asked_as_sure_as_it_was(
    base: Foundation, people: People, questions: Questions, stack: AsyncExitStack
) -> None:
    faces = await seed_library(base, draw_people(1, 4), faces_per_photo=2)
    world = await make_world(base, people, stack, faces)
    await people.assign(world.anna, faces.face_ids[:1])
    assert (await world.ask_pairs((1, world.anna, 0.93), (2, world.anna, 0.9))).result == {"asked": 2}
    double, single = await questions.list()
    assert (UUID(double.face_id), UUID(double.person_id)) == (faces.face_ids[1], world.anna.person_id)
    assert double.confidence == pytest.approx(0.93)
    assert (double.evidence.same_photo, single.evidence.same_photo) == (True, False)
    assert [UUID(each.face_id) for each in double.evidence.exemplars] == [faces.face_ids[0]]
    assert double.evidence.score == pytest.approx(double.evidence.exemplars[0].cosine)
    again = await world.ask_pairs((1, world.anna, 0.93))
    assert (again.done, again.skipped) == (1, 0)
    assert {each.id: each.etag for each in await questions.list()} == {each.id: each.etag for each in (double, single)}


async def test_pairs_that_are_settled_are_not_asked(
    base: Foundation, people: People, questions: Questions, world: World
) -> None:
    await questions.find_more(world.bert)
    (no,) = [each.id for each in await questions.list(face_id=str(world.faces.face_ids[6]))]
    await questions.reject(no)
    await people.exclude(world.anna, world.faces.face_ids[2])
    async with base.database.transaction() as tx:
        ignored = update(face_table).where(face_table.c.face_id == world.faces.face_ids[3])
        await tx.execute(ignored.values(state="IGNORED"))
    await world.delete(world.cleo)
    before = await questions.list()
    job = await world.ask_pairs(
        (1, world.bert, 0.9),  # has a person
        (2, world.anna, 0.9),  # excluded
        (3, world.anna, 0.9),  # no face to ask about
        (6, world.bert, 0.9),  # rejected
        (10, world.cleo, 0.9),  # nobody any more
    )
    assert (job.done, job.skipped, job.result) == (5, 5, {"asked": 0})
    assert await questions.list() == before
