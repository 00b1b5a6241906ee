"""Open questions follow people: into others and back, whenever and in whatever order the jobs run."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import delete, update

from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.domain import following
from services.suggestions.repository.following import settle_questions
from services.suggestions.server import start as start_suggestions
from shared.db.tables_persons import persons
from shared.db.tables_shared import job_slices
from shared.errors import PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.conftest import Questions
from tests.integration.suggestions.world import World, counts, make_world

PENDING, ACCEPTED, REJECTED, EXPIRED = "PENDING", "ACCEPTED", "REJECTED", "EXPIRED"


@pytest.fixture
async def questions(running: Running, people: People, base: Foundation) -> Questions:
    """A suggestions server without a worker: the tests say when a job runs."""
    return Questions(base, await running.server("suggestions", start_suggestions))


@pytest.fixture
async def world(base: Foundation, people: People, stack: AsyncExitStack) -> World:
    faces = await seed_library(base, draw_people(3, 4))
    return await make_world(base, people, stack, faces)


async def test_a_merge_takes_open_questions_along_and_its_undoing_brings_them_back(
    base: Foundation, questions: Questions, world: World
) -> None:
    *moving, staying = await ask(base, world.faces, [(0, world.anna, 0.9), (1, world.anna, 0.8), (2, world.bert, 0.7)])
    before = {each.id: each.etag for each in await questions.list()}
    await world.merge(world.anna, world.bert)
    assert await questions.pairs() == {(world.faces.face_ids[2], world.bert.person_id)}
    assert await world.follow(world.anna, world.bert) == (2, 0, 0)
    assert await world.standing() == {(0, "Bert"): PENDING, (1, "Bert"): PENDING, (2, "Bert"): PENDING}
    after = {each.id: each.etag for each in await questions.list(person_id=str(world.bert.person_id))}
    assert after.keys() == {*moving, staying}
    assert {key for key in after if after[key] != before[key]} == set(moving)
    await world.part(world.anna)
    assert await world.follow(world.anna, world.bert) == (2, 0, 0)
    assert await world.standing() == {(0, "Anna"): PENDING, (1, "Anna"): PENDING, (2, "Bert"): PENDING}


async def test_one_row_per_pair_the_survivors_own_question_stays(
    base: Foundation, questions: Questions, world: World
) -> None:
    theirs, _ = await ask(base, world.faces, [(0, world.bert, 0.6), (0, world.anna, 0.9)])
    before = await questions.get(theirs)
    await world.merge(world.anna, world.bert)
    assert await world.follow(world.anna, world.bert) == (0, 0, 1)
    assert await world.standing() == {(0, "Bert"): PENDING, (0, "Anna"): EXPIRED}
    assert await questions.get(theirs) == before
    await world.part(world.anna)
    assert await world.follow(world.anna, world.bert) == (0, 1, 0)
    assert await world.standing() == {(0, "Bert"): PENDING, (0, "Anna"): PENDING}


async def test_two_parts_of_one_person_asked_about_one_face_become_one_question(base: Foundation, world: World) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.6), (0, world.bert, 0.9)])
    for part in (world.anna, world.bert):
        await world.merge(part, world.cleo)
    assert await world.follow(world.anna, world.bert) == (1, 0, 1)
    assert await world.standing() == {(0, "Cleo"): PENDING, (0, "Anna"): EXPIRED}
    await world.part(world.anna)
    await world.part(world.bert)
    assert await world.follow(world.anna, world.bert, world.cleo) == (1, 1, 0)
    assert await world.standing() == {(0, "Anna"): PENDING, (0, "Bert"): PENDING}


async def test_what_was_answered_does_not_follow(
    base: Foundation, questions: Questions, people: People, world: World
) -> None:
    yes, no, taken, _ = await ask(base, world.faces, [(row, world.anna, 0.9 - row / 10) for row in range(4)])
    await questions.accept(yes)
    await questions.reject(no)
    await people.assign(world.cleo, world.faces.face_ids[2:3])
    await people.exclude(world.bert, world.faces.face_ids[3])
    await world.merge(world.anna, world.bert)
    assert await world.follow(world.anna, world.bert) == (0, 0, 2)
    expected = {(0, "Anna"): ACCEPTED, (1, "Anna"): REJECTED, (2, "Anna"): EXPIRED, (3, "Anna"): EXPIRED}
    assert await world.standing() == expected
    assert (await questions.get(taken)).state == pb.SUGGESTION_STATE_EXPIRED
    await world.part(world.anna, [0])
    # That face is not Bert, which says nothing of Anna; the other has a person still.
    assert await world.follow(world.anna) == (0, 1, 0)
    assert await world.standing() == expected | {(3, "Anna"): PENDING}


async def test_a_moved_question_that_was_answered_stays_with_whom_it_was_answered_for(
    base: Foundation, questions: Questions, world: World
) -> None:
    yes, no, _ = await ask(base, world.faces, [(row, world.anna, 0.9) for row in range(3)])
    await world.merge(world.anna, world.bert)
    await world.follow(world.anna)
    await questions.accept(yes)
    await questions.reject(no)
    await world.part(world.anna)
    assert await world.follow(world.anna, world.bert) == (1, 0, 0)
    assert await world.standing() == {(0, "Bert"): ACCEPTED, (1, "Bert"): REJECTED, (2, "Anna"): PENDING}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_chains_of_merges_are_followed_in_any_order(
    base: Foundation, world: World, order: tuple[int, int]
) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9), (1, world.bert, 0.9), (2, world.cleo, 0.9)])
    steps = [(world.anna, world.bert), (world.bert, world.cleo)]
    for part, whole in steps:
        await world.merge(part, whole)
    left = [await world.later(*people) for people in steps]
    for step in order:
        await world.run(left[step])
    assert await world.standing() == {(row, "Cleo"): PENDING for row in range(3)}
    # Undone from the inside: Bert takes with him what was Anna's, who is still part of him.
    await world.part(world.bert)
    assert await world.follow(world.bert, world.cleo) == (2, 0, 0)
    assert await world.standing() == {(0, "Bert"): PENDING, (1, "Bert"): PENDING, (2, "Cleo"): PENDING}
    await world.part(world.anna)
    assert await world.follow(world.anna, world.bert) == (1, 0, 0)
    assert await world.standing() == {(0, "Anna"): PENDING, (1, "Bert"): PENDING, (2, "Cleo"): PENDING}


async def test_a_merge_undone_before_it_was_followed_moves_nothing(base: Foundation, world: World) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9)])
    await world.merge(world.anna, world.bert)
    late = await world.later(world.anna, world.bert)
    await world.part(world.anna)
    assert await world.follow(world.anna, world.bert) == (0, 0, 0)
    assert counts(await world.run(late)) == (0, 0, 0)
    assert await world.standing() == {(0, "Anna"): PENDING}


async def test_a_deleted_persons_questions_expire_and_come_back_with_them(
    base: Foundation, questions: Questions, world: World
) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9), (1, world.anna, 0.8), (1, world.bert, 0.7)])
    await world.merge(world.anna, world.cleo)
    await world.follow(world.anna)
    await world.delete(world.cleo)
    assert await world.follow(world.cleo) == (0, 0, 2)
    assert await world.standing() == {(0, "Cleo"): EXPIRED, (1, "Cleo"): EXPIRED, (1, "Bert"): PENDING}
    (bert,) = await questions.list()
    await questions.accept(bert.id)
    await world.delete(world.cleo, deleted=False)
    assert await world.follow(world.cleo) == (0, 1, 0)
    assert await world.standing() == {(0, "Cleo"): PENDING, (1, "Cleo"): EXPIRED, (1, "Bert"): ACCEPTED}


async def test_questions_resting_on_faces_that_went_expire_and_come_back_with_them(
    people: People, world: World
) -> None:
    await people.assign(world.anna, world.faces.face_ids[:2])
    await world.ask_resting_on(4, world.anna, [0])
    await world.ask_resting_on(5, world.anna, [1])
    assert await world.follow(world.anna) == (0, 0, 0)
    await people.unassign(world.faces.face_ids[0])
    assert await world.follow(world.anna) == (0, 0, 1)
    assert await world.standing() == {(4, "Anna"): EXPIRED, (5, "Anna"): PENDING}
    await people.assign(world.anna, world.faces.face_ids[:1])
    assert await world.follow(world.anna) == (0, 1, 0)
    # What a merged person's questions rest on has moved with them.
    await world.merge(world.anna, world.bert)
    assert await world.follow(world.anna, world.bert) == (2, 0, 0)
    await world.ask_resting_on(6, world.bert, [0])
    await world.part(world.anna, [0, 1])
    assert await world.follow(world.anna, world.bert) == (2, 0, 1)
    assert await world.standing() == {(4, "Anna"): PENDING, (5, "Anna"): PENDING, (6, "Bert"): EXPIRED}


async def test_a_question_that_expired_otherwise_does_not_wake(
    base: Foundation, questions: Questions, people: People, world: World
) -> None:
    yes, _ = await ask(base, world.faces, [(0, world.anna, 0.9), (0, world.bert, 0.6)])
    await questions.accept(yes)
    await people.unassign(world.faces.face_ids[0])
    assert await world.follow(world.anna, world.bert) == (0, 0, 0)
    assert await world.standing() == {(0, "Anna"): ACCEPTED, (0, "Bert"): EXPIRED}


async def test_asked_again_a_question_is_about_its_person_of_today(base: Foundation, world: World) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9)])
    await world.merge(world.anna, world.bert)
    await world.follow(world.anna)
    await world.delete(world.bert)
    await world.follow(world.bert)
    await world.delete(world.bert, deleted=False)
    await ask(base, world.faces, [(0, world.bert, 0.8)])
    await world.part(world.anna)
    assert await world.follow(world.anna, world.bert) == (0, 0, 0)
    assert await world.standing() == {(0, "Bert"): PENDING}


async def test_batches_go_on_from_where_a_crash_left_them(
    base: Foundation, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "BATCH_QUESTIONS", 4)
    await ask(base, world.faces, [(row, world.anna, 0.9) for row in range(10)])
    await world.merge(world.anna, world.bert)
    job_id = await world.later(world.anna)
    settle, calls = settle_questions, 0

    async def fail_second(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionError("PostgreSQL went away")
        return await settle(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(following, "settle_questions", fail_second)
        half = await world.run(job_id)
    assert (half.state.value, half.done) == ("RUNNING", 4)
    async with base.database.transaction() as tx:
        await tx.execute(update(job_slices).where(job_slices.c.job_id == job_id).values(not_before=None))
    whole = await world.run(job_id)
    assert (whole.done, counts(whole)) == (10, (10, 0, 0))
    assert await world.standing() == {(row, "Bert"): PENDING for row in range(10)}


async def test_what_is_asked_while_people_are_followed_is_asked_once_and_of_nobody_who_is_gone(
    base: Foundation, world: World
) -> None:
    everybody = range(len(world.faces.face_ids))
    await ask(base, world.faces, [(row, world.anna, 0.9) for row in everybody])
    await world.merge(world.anna, world.bert)
    await asyncio.gather(
        world.follow(world.anna), *(ask(base, world.faces, [(row, world.bert, 0.8)]) for row in everybody)
    )
    await world.follow(world.anna)
    standing = await world.standing()
    assert [row for (row, _), state in sorted(standing.items()) if state == PENDING] == list(everybody)
    assert {name for (_, name), state in standing.items() if state == PENDING} == {"Bert"}
    late = [world.ask_resting_on(row, world.bert, []) for row in everybody]
    await asyncio.gather(world.merge(world.bert, world.cleo), *late)
    await world.follow(world.bert)
    assert {name for (_, name), state in (await world.standing()).items() if state == PENDING} == {"Cleo"}


async def test_statements_do_not_grow_with_the_questions(base: Foundation, world: World) -> None:
    costs: list[int] = []
    for rows in (range(1), range(1, 12)):
        await ask(base, world.faces, [(row, world.anna, 0.9) for row in rows])
        await world.merge(world.anna, world.bert)
        job_id = await world.later(world.anna)
        with recording_statements(base.database) as sent:
            await world.run(job_id)
        costs.append(sum(each.executions for each in sent))
        await world.part(world.anna)
    assert costs[0] == costs[1]


async def test_a_person_forgotten_leaves_what_came_from_them_to_whom_it_came(base: Foundation, world: World) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9), (1, world.anna, 0.8)])
    await world.merge(world.anna, world.bert)
    await world.follow(world.anna)
    async with base.database.transaction() as tx:
        await tx.execute(delete(persons).where(persons.c.person_id == world.anna.person_id))
    await world.merge(world.bert, world.cleo)
    assert await world.follow(world.bert) == (2, 0, 0)
    await world.part(world.bert)
    assert await world.follow(world.bert) == (2, 0, 0)
    assert await world.standing() == {(0, "Bert"): PENDING, (1, "Bert"): PENDING}


@pytest.mark.parametrize("gone", ["merged", "deleted"])
async def test_yes_to_a_question_about_somebody_who_is_gone_is_refused_and_leaves_it_open(
    base: Foundation, questions: Questions, world: World, gone: str
) -> None:
    (mine,) = await ask(base, world.faces, [(0, world.anna, 0.9)])
    await (world.merge(world.anna, world.bert) if gone == "merged" else world.delete(world.anna))
    assert await questions.list() == []
    with pytest.raises(PreconditionFailed) as refused:
        await questions.accept(mine)
    assert refused.value.reason is Reason.PERSON_NOT_ACTIVE
    assert (await questions.get(mine)).state == pb.SUGGESTION_STATE_PENDING
    if gone == "merged":
        await world.follow(world.anna)
        answer = await questions.accept(mine)
        assert answer.suggestion.person_id == str(world.bert.person_id)


async def test_a_question_found_too_late_about_somebody_who_is_gone_is_not_asked(world: World) -> None:
    await world.merge(world.anna, world.cleo)
    await world.delete(world.bert)
    for person in (world.anna, world.bert):
        await world.ask_resting_on(0, person, [])
    assert await world.standing() == {}
