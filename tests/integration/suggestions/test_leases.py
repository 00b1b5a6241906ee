"""LeaseReviewQueue: everybody gets questions of their own, those that settle most faces first."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.domain.leasing import LeaseQueue, lease_queue
from services.suggestions.repository.leases import lease_questions
from services.suggestions.wiring import build_deps
from shared.db.tables_suggestions import review_leases, suggestions
from shared.errors import InvalidRequest
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.counting import recording_statements
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.clusters import put_in_cluster
from tests.integration.suggestions.conftest import Questions
from tests.integration.suggestions.reviewing import NO, YES, review, send


async def lease(questions: Questions, reviewer: str = "", **fields: Any) -> pb.LeaseReviewQueueResponse:
    request = pb.LeaseReviewQueueRequest(reviewer=reviewer, **fields)
    async with translate_errors("suggestions"):
        return await questions.suggestions.LeaseReviewQueue(request)


def ids_of(answer: pb.LeaseReviewQueueResponse) -> list[str]:
    return [each.id for each in answer.suggestions]


async def end_all(base: Foundation) -> None:
    """Let every lease be over."""
    async with base.database.transaction() as tx:
        await tx.execute(update(review_leases).values(leased_until=base.clock.now() - timedelta(seconds=1)))


async def count_leases(base: Foundation) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).select_from(review_leases))
    return found


async def test_what_settles_most_comes_first_and_then_the_surest(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 9))
    anna = await people.create("Anna")
    alone, sure, grouped, surer, given = await ask(
        base, faces, [(0, anna, 0.6), (1, anna, 0.95), (2, anna, 0.5), (3, anna, 0.55), (4, anna, 0.99)]
    )
    await put_in_cluster(base, faces, rows=[2, 3, 4, 5, 6, 7])
    # Those of the cluster who have a person are settled; so is the question.
    await people.assign(anna, [faces.face_ids[4], faces.face_ids[7]])
    answer = await lease(questions, "Eve")
    assert ids_of(answer) == [surer, grouped, sure, alone]
    assert list(answer.faces_settled) == [4, 4, 1, 1]
    assert given not in ids_of(answer)
    assert [each.cluster_id for each in answer.suggestions] == ["clu_0123456789ab"] * 2 + [""] * 2


async def test_two_reviewers_get_different_questions_and_each_their_own_again(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 25))
    anna = await people.create("Anna")
    ids = await ask(base, faces, [(row, anna, 0.9 - row / 100) for row in range(25)])
    eve, adam = await lease(questions, "Eve"), await lease(questions, "Adam")
    assert (ids_of(eve), ids_of(adam)) == (ids[:10], ids[10:20])
    assert ids_of(await lease(questions, "Eve")) == ids[:10]
    assert ids_of(await lease(questions, "Eve", limit=3)) == ids[:3]
    more = await lease(questions, "Eve", limit=100)
    assert ids_of(more) == ids[:10] + ids[20:]
    assert more.lease_until.ToDatetime() >= eve.lease_until.ToDatetime()
    assert not ids_of(await lease(questions, "Seth"))
    assert not ids_of(await lease(questions, "Eve", library_id="other"))


async def test_a_lease_ends_with_its_time(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 4))
    ids = await ask(base, faces, [(row, await people.create("Anna"), 0.9 - row / 100) for row in range(4)])
    before = base.clock.now()
    answer = await lease(questions, "Eve")
    until = answer.lease_until.ToDatetime(before.tzinfo)
    assert timedelta(seconds=299) < until - before < timedelta(seconds=360)
    assert not ids_of(await lease(questions, "Adam"))
    await end_all(base)
    assert ids_of(await lease(questions, "Adam")) == ids
    assert not ids_of(await lease(questions, "Eve"))


@pytest.mark.parametrize("way", ["accept", "reject", "bulk"])
async def test_a_lease_ends_with_the_answer(base: Foundation, people: People, questions: Questions, way: str) -> None:
    faces = await seed_library(base, draw_people(1, 3))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    mine, other, rival = await ask(base, faces, [(0, anna, 0.9), (1, anna, 0.8), (0, bert, 0.7)])
    await lease(questions, "Eve")
    assert await count_leases(base) == 3
    if way == "accept":
        await questions.accept(mine)
        left = {other}
    elif way == "reject":
        await questions.reject(mine)
        left = {other, rival}
    else:
        await send(questions, review(mine, YES), review(other, NO))
        left = set()
    assert await count_leases(base) == len(left)
    assert set(ids_of(await lease(questions, "Eve"))) == left


async def test_without_a_name_it_is_the_caller_who_reviews(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 1))
    (mine,) = await ask(base, faces, [(0, await people.create("Anna"), 0.9)])
    assert ids_of(await lease(questions)) == [mine]
    assert ids_of(await lease(questions, "anonymous")) == [mine]
    for wrong in ({"reviewer": "x" * 201}, {"reviewer": "a\nb"}, {"limit": -1}):
        with pytest.raises(InvalidRequest):
            await lease(questions, **wrong)


async def test_racing_reviewers_never_share_a_question(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 200))
    anna = await people.create("Anna")
    ids = await ask(base, faces, [(row, anna, 0.9) for row in range(200)])
    answers = await asyncio.gather(*(lease(questions, f"reviewer {turn}", limit=10) for turn in range(25)))
    given = Counter(each for answer in answers for each in ids_of(answer))
    assert max(given.values()) == 1
    # Whoever was told that there is no more asks in vain; whoever missed some in the race gets them now.
    late = await asyncio.gather(*(lease(questions, f"late {turn}", limit=100) for turn in range(3)))
    given.update(each for answer in late for each in ids_of(answer))
    assert max(given.values()) == 1
    assert set(given) == set(ids)


async def test_what_is_being_given_to_another_is_passed_over_without_waiting(base: Foundation, people: People) -> None:
    faces = await seed_library(base, draw_people(1, 6))
    anna = await people.create("Anna")
    ids = [UUID(each) for each in await ask(base, faces, [(row, anna, 0.9 - row / 100) for row in range(6)])]
    deps = build_deps(base)
    async with base.database.transaction() as first:
        mine = await lease_queue(first, deps, LeaseQueue("default", "Eve", 2))
        async with base.database.transaction() as second:
            theirs = await lease_queue(second, deps, LeaseQueue("default", "Adam", 2))
    assert [each.suggestion.suggestion_id for each in mine.questions] == ids[:2]
    assert [each.suggestion.suggestion_id for each in theirs.questions] == ids[2:4]


async def test_a_question_leased_since_the_queue_was_read_is_not_given_twice(base: Foundation, people: People) -> None:
    faces = await seed_library(base, draw_people(1, 3))
    anna = await people.create("Anna")
    ids = [UUID(each) for each in await ask(base, faces, [(row, anna, 0.9) for row in range(3)])]
    now = base.clock.now()
    until = now + timedelta(minutes=5)
    async with base.database.transaction() as tx:
        assert await lease_questions(tx, "default", "Eve", ids[:2], now, until) == set(ids[:2])
    async with base.database.transaction() as tx:
        assert await lease_questions(tx, "default", "Adam", ids, now, until) == {ids[2]}
        assert await lease_questions(tx, "default", "Eve", ids, now, until) == set(ids[:2])


async def test_as_many_statements_for_a_hundred_as_for_one(base: Foundation, people: People) -> None:
    faces = await seed_library(base, draw_people(1, 120))
    anna = await people.create("Anna")
    await ask(base, faces, [(row, anna, 0.9) for row in range(120)])
    for limit in (1, 100):
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                queue = await lease_queue(tx, build_deps(base), LeaseQueue("default", str(uuid4()), limit))
        assert len(queue.questions) == limit
        assert [statement.executions for statement in sent] == [1, 1, 1]


async def test_questions_that_do_not_stand_are_not_given(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 3))
    anna = await people.create("Anna")
    given, barred, expired = await ask(base, faces, [(row, anna, 0.9) for row in range(3)])
    await people.exclude(anna, faces.face_ids[1])
    async with base.database.transaction() as tx:
        await tx.execute(
            update(suggestions).where(suggestions.c.suggestion_id == UUID(expired)).values(state="EXPIRED")
        )
    assert ids_of(await lease(questions)) == [given]
    assert barred != given
