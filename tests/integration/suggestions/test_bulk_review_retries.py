"""Many answers at once: however often they are sent and wherever they break off, nothing is done twice or by halves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from services.suggestions.adapters.persons import RemoteAssignments
from services.suggestions.domain.bulk_reviewing import (
    Answer,
    Review,
    ReviewSuggestions,
    begin_reviews,
    finish_reviews,
)
from services.suggestions.wiring import build_deps
from shared.errors import InvalidRequest, Reason, Unavailable
from shared.foundation import Foundation
from shared.jobs.model import ItemFailure
from tests.integration.suggestions.album import People
from tests.integration.suggestions.asking import ask, expire_settled
from tests.integration.suggestions.conftest import Questions, Scene
from tests.integration.suggestions.reviewing import (
    ACCEPTED,
    CALLER,
    NO,
    REJECTED,
    YES,
    answers,
    ledger,
    owners,
    review,
    send,
)


class Failing:
    """The persons service, gone after so many calls."""

    def __init__(self, remote: RemoteAssignments, calls: int) -> None:
        self._remote = remote
        self._left = calls

    def _count(self) -> None:
        if self._left == 0:
            raise Unavailable("persons is away")
        self._left -= 1

    async def assign_face(self, library_id: str, face_id: UUID, person_id: UUID, reason: str, request_id: UUID) -> str:
        self._count()
        return await self._remote.assign_face(library_id, face_id, person_id, reason, request_id)

    async def assign_faces(
        self, library_id: str, face_ids: Sequence[UUID], person_id: UUID, reason: str, request_id: UUID
    ) -> list[ItemFailure]:
        self._count()
        return await self._remote.assign_faces(library_id, face_ids, person_id, reason, request_id)

    async def exclude_face(self, library_id: str, face_id: UUID, person_id: UUID, reason: str, request_id: UUID) -> str:
        self._count()
        return await self._remote.exclude_face(library_id, face_id, person_id, reason, request_id)


@pytest.mark.parametrize("request_id", ["", "4c2ea1a0-9f3e-4d7c-8d3c-6a1f2b3c4d5e"])
async def test_a_request_sent_twice_is_done_once(
    base: Foundation, questions: Questions, scene: Scene, request_id: str
) -> None:
    yes, also, no = await ask(base, scene.faces, [(row, scene.anna, 0.9) for row in range(3)])
    given = [review(yes, YES), review(also, YES), review(no, NO)]
    twins = await asyncio.gather(*(send(questions, *given, request_id=request_id) for _ in range(4)))
    for answer in twins:
        assert [each.id for each in answer.suggestions] == [yes, also, no]
        assert not answer.failures
    assert Counter(await ledger(base)) == Counter([("FACES_ASSIGNED", 2), ("FACE_EXCLUDED", 1)])
    assert len(await answers(base)) == 3
    if request_id:
        assert all(answer == twins[0] for answer in twins)
        with pytest.raises(InvalidRequest) as reused:
            await send(questions, given[0], request_id=request_id)
        assert reused.value.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("meanwhile", [False, True])
async def test_a_crash_at_any_call_is_finished_by_the_retry(
    base: Foundation,
    people: People,
    questions: Questions,
    scene: Scene,
    remote: RemoteAssignments,
    calls: int,
    meanwhile: bool,
) -> None:
    asked = [
        (0, scene.anna, 0.9),
        (1, scene.anna, 0.8),
        (2, scene.bert, 0.7),
        (3, scene.anna, 0.6),
        (4, scene.bert, 0.5),
    ]
    ids = await ask(base, scene.faces, asked)
    said = [YES, YES, YES, NO, NO]
    request_id = uuid4()
    words = {YES: Answer.ACCEPT, NO: Answer.REJECT}
    command = ReviewSuggestions(
        "default", [Review(UUID(each), "1", words[answer]) for each, answer in zip(ids, said, strict=True)], request_id
    )
    if calls < 4:
        with pytest.raises(Unavailable):
            await begin_reviews(base.database, Failing(remote, calls), command)
    else:
        assert not await begin_reviews(base.database, Failing(remote, calls), command)
    done = len(await ledger(base))
    if meanwhile:
        # What is settled is closed by others before the retry comes.
        await expire_settled(base, scene.anna, scene.bert)
    given = [review(each, answer) for each, answer in zip(ids, said, strict=True)]
    answer = await send(questions, *given, request_id=str(request_id))
    assert not answer.failures
    assert [each.state for each in answer.suggestions] == [ACCEPTED, ACCEPTED, ACCEPTED, REJECTED, REJECTED]
    assert len(answer.change_ids) == 4
    assert Counter(await ledger(base)) == Counter(
        [("FACES_ASSIGNED", 2), ("FACES_ASSIGNED", 1), ("FACE_EXCLUDED", 1), ("FACE_EXCLUDED", 1)]
    )
    assert done <= calls
    kept = await answers(base)
    assert len(kept) == 5
    assert all(each["change_id"] is not None for each in kept)


async def test_a_retry_that_has_fewer_faces_to_give_is_no_other_request(
    base: Foundation, people: People, questions: Questions, scene: Scene, remote: RemoteAssignments
) -> None:
    one, two, three = await ask(base, scene.faces, [(row, scene.anna, 0.9) for row in range(3)])
    request_id = uuid4()
    ids = scene.faces.face_ids
    # The first try saw one question open and two closed; they were asked again since.
    command = ReviewSuggestions(
        "default",
        [Review(UUID(one), "1", Answer.ACCEPT), *(Review(UUID(each), "9", Answer.ACCEPT) for each in (two, three))],
        request_id,
    )
    refused = await begin_reviews(base.database, remote, command)
    assert {failure.reason for failure in refused.values()} == {"ETAG_MISMATCH"}
    assert set(await owners(base)) == {ids[0]}
    answer = await send(questions, *(review(each, YES) for each in (one, two, three)), request_id=str(request_id))
    assert not answer.failures
    assert await ledger(base) == [("FACES_ASSIGNED", 1), ("FACES_ASSIGNED", 2)]
    assert len(answer.change_ids) == 2


async def test_a_face_taken_away_between_the_steps_is_refused(
    base: Foundation, people: People, scene: Scene, remote: RemoteAssignments
) -> None:
    yes, no = await ask(base, scene.faces, [(0, scene.anna, 0.9), (1, scene.anna, 0.8)])
    command = ReviewSuggestions(
        "default", [Review(UUID(yes), "1", Answer.ACCEPT), Review(UUID(no), "1", Answer.REJECT)], uuid4()
    )
    assert not await begin_reviews(base.database, remote, command)
    await people.unassign(scene.faces.face_ids[0])
    async with base.database.transaction() as tx:
        made = await finish_reviews(tx, build_deps(base), command, CALLER, {})
    assert [(failure.item_id, failure.reason) for failure in made.failures] == [(yes, "FACE_NOT_ASSIGNED")]
    assert [str(each.suggestion_id) for each in made.suggestions] == [no]


async def test_the_service_being_away_fails_the_call_and_refuses_nothing(
    base: Foundation, scene: Scene, remote: RemoteAssignments
) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.9)])
    command = ReviewSuggestions("default", [Review(UUID(mine), "1", Answer.ACCEPT)], uuid4())
    with pytest.raises(Unavailable):
        await begin_reviews(base.database, Failing(remote, 0), command)
    assert not await answers(base)
