"""Many answers at once, of many reviewers: every face ends with one person, and no answer is lost."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from uuid import UUID, uuid4

import pytest

from kith.suggestions.v1 import suggestions_pb2 as pb
from shared.foundation import Foundation
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.conftest import Questions
from tests.integration.suggestions.reviewing import (
    ACCEPTED,
    EXPIRED,
    NO,
    PENDING,
    REJECTED,
    YES,
    answers,
    excluded,
    owners,
    review,
    send,
)


@pytest.mark.parametrize(
    ("reviewers", "pairs", "each"),
    [
        (20, 100, 50),
        pytest.param(
            1000,
            5000,
            100,
            marks=pytest.mark.skipif("KITH_TEST_RACES" not in os.environ, reason="minutes long: KITH_TEST_RACES=1"),
        ),
    ],
)
async def test_racing_reviewers_leave_each_face_one_person_and_lose_no_answer(
    base: Foundation, people: People, questions: Questions, reviewers: int, pairs: int, each: int
) -> None:
    """Two questions about every face, yes to either; of a tenth of the faces everybody says no to both."""
    faces = await seed_library(base, draw_people(1, pairs // 2))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    rows = [(row, person, 0.9) for row in range(pairs // 2) for person in (anna, bert)]
    ids = await ask(base, faces, rows)
    denied = set(ids[: pairs // 10])
    drawn = random.Random(7)
    # As many as one server of two cores answers within their deadlines; the others wait in the test.
    turns = asyncio.Semaphore(32)

    async def answer() -> tuple[list[str], pb.BatchReviewSuggestionsResponse]:
        mine = drawn.sample(ids, each)
        given = [review(one, NO if one in denied else YES) for one in mine]
        async with turns:
            return mine, await send(questions, *given, request_id=str(uuid4()))

    told = await asyncio.gather(*(answer() for _ in range(reviewers)))
    final = {
        one.id: one for state in (ACCEPTED, REJECTED, EXPIRED, PENDING) for one in await list_all(questions, state)
    }
    reasons: Counter[str] = Counter()
    for mine, response in told:
        applied = [one.id for one in response.suggestions]
        refused = [failure.id for failure in response.failures]
        assert sorted(applied + refused) == sorted(mine)
        assert all(final[one].state == (REJECTED if one in denied else ACCEPTED) for one in applied)
        reasons.update(failure.reason for failure in response.failures)
    assert set(reasons) <= {
        "FACE_ALREADY_ASSIGNED",
        "SUGGESTION_NOT_PENDING",
        "ETAG_MISMATCH",
        "LOCK_TIMEOUT",
    }
    owned = await owners(base)
    accepted = {UUID(one.face_id): UUID(one.person_id) for one in final.values() if one.state == ACCEPTED}
    assert sum(one.state == ACCEPTED for one in final.values()) == len(accepted)
    assert owned == accepted
    asked = {one for mine, _ in told for one in mine}
    assert await excluded(base) == {
        (UUID(one.face_id), UUID(one.person_id)) for one in final.values() if one.state == REJECTED
    }
    assert {one.id for one in final.values() if one.state == REJECTED} == denied & asked
    # Nobody's yes was overruled but by the other person's: every face somebody said yes about has its person.
    assert {UUID(final[one].face_id) for one in asked - denied} == set(owned)
    kept = Counter(str(one["suggestion_id"]) for one in await answers(base))
    assert kept == Counter(one.id for one in final.values() if one.state in (ACCEPTED, REJECTED))


async def list_all(questions: Questions, state: int) -> list[pb.Suggestion]:
    found: list[pb.Suggestion] = []
    token = ""
    while True:
        request = pb.ListSuggestionsRequest(page_size=500, page_token=token, states=[state])  # type: ignore[list-item]
        answer = await questions.suggestions.ListSuggestions(request)
        found += answer.suggestions
        token = answer.next_page_token
        if not token:
            return found
