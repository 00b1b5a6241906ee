"""Yes and no: what an answer does, and that no retry, race or crash does it twice or by halves."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.adapters.persons import RemoteAssignments
from services.suggestions.domain.reviewing import AnswerSuggestion, begin_accept, begin_reject
from shared.db.tables_persons import assignments, changes
from shared.errors import EtagMismatch, InvalidRequest, KithError, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.suggestions.album import People
from tests.integration.suggestions.asking import ask, expire_settled
from tests.integration.suggestions.conftest import Questions, Scene
from tests.integration.suggestions.reviewing import ACCEPTED, EXPIRED, REJECTED, answers, excluded, ledger, owners


async def told(base: Foundation) -> list[tuple[str, str]]:
    """What was answered, and by whom."""
    return [(each["answer"], each["reviewer"]) for each in await answers(base)]


async def test_yes_assigns_the_face_and_expires_the_rival_question(
    base: Foundation, questions: Questions, scene: Scene
) -> None:
    mine, rival, other = await ask(
        base, scene.faces, [(0, scene.anna, 0.9), (0, scene.bert, 0.6), (1, scene.bert, 0.7)]
    )
    answer = await questions.accept(mine)
    assert answer.suggestion.state == ACCEPTED
    assert answer.suggestion.reviewed_by == "anonymous"
    assert answer.suggestion.HasField("close_time")
    assert (await owners(base)).get(scene.faces.face_ids[0]) == scene.anna.person_id
    assert (await questions.get(rival)).state == EXPIRED
    assert [each.id for each in await questions.list()] == [other]
    async with base.database.transaction() as tx:
        change = await tx.one_or_none(select(changes).where(changes.c.change_id == UUID(answer.change_id)))
        source = await tx.scalar(select(assignments.c.source))
    assert change is not None
    assert change.kind == "FACES_ASSIGNED"
    assert source == "HUMAN"
    assert await told(base) == [("ACCEPT", "anonymous")]
    with pytest.raises(PreconditionFailed) as refused:
        await questions.accept(rival)
    assert refused.value.reason is Reason.SUGGESTION_NOT_PENDING
    assert refused.value.metadata == {"suggestion_id": rival, "state": "EXPIRED"}


async def test_no_excludes_the_pair_and_leaves_the_rival_open(
    base: Foundation, questions: Questions, scene: Scene
) -> None:
    mine, rival = await ask(base, scene.faces, [(0, scene.anna, 0.9), (0, scene.bert, 0.6)])
    answer = await questions.reject(mine)
    assert answer.suggestion.state == REJECTED
    assert answer.change_id
    assert await excluded(base) == {(scene.faces.face_ids[0], scene.anna.person_id)}
    assert [each.id for each in await questions.list()] == [rival]
    with pytest.raises(PreconditionFailed) as refused:
        await questions.accept(mine)
    assert refused.value.reason is Reason.SUGGESTION_NOT_PENDING
    assert await told(base) == [("REJECT", "anonymous")]


@pytest.mark.parametrize("request_id", ["", "4c2ea1a0-9f3e-4d7c-8d3c-6a1f2b3c4d5e"])
async def test_an_answer_sent_twice_is_given_once_and_answered_alike(
    base: Foundation, questions: Questions, scene: Scene, request_id: str
) -> None:
    yes, no = await ask(base, scene.faces, [(0, scene.anna, 0.9), (1, scene.anna, 0.8)])
    first = await questions.accept(yes, request_id=request_id)
    assert await questions.accept(yes, request_id=request_id) == first
    if request_id:
        with pytest.raises(InvalidRequest) as reused:
            await questions.reject(no, request_id=request_id)
        assert reused.value.reason is Reason.REQUEST_ID_REUSED
    other = str(uuid4()) if request_id else ""
    second = await questions.reject(no, request_id=other)
    assert await questions.reject(no, request_id=other) == second
    assert await told(base) == [("ACCEPT", "anonymous"), ("REJECT", "anonymous")]
    assert await ledger(base) == [("FACES_ASSIGNED", 1), ("FACE_EXCLUDED", 1)]


async def test_a_stale_etag_is_refused_and_changes_nothing(
    base: Foundation, questions: Questions, scene: Scene
) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.9)])
    for answer in (questions.accept, questions.reject):
        with pytest.raises(EtagMismatch) as refused:
            await answer(mine, etag="7")
        assert refused.value.metadata["current_etag"] == (await questions.get(mine)).etag
    assert await ledger(base) == []
    await questions.accept(mine, etag=(await questions.get(mine)).etag)


async def test_what_is_not_there_is_not_found(questions: Questions) -> None:
    for call in (questions.get, questions.accept, questions.reject):
        with pytest.raises(NotFound):
            await call(str(uuid4()))
        with pytest.raises(InvalidRequest):
            await call("Anna")


async def test_another_librarys_suggestion_is_not_there(base: Foundation, questions: Questions, scene: Scene) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.9)])
    for answer in (questions.accept, questions.reject):
        with pytest.raises(NotFound):
            await answer(mine, library_id="other")
    assert await ledger(base) == []


@pytest.mark.parametrize("expired_meanwhile", [False, True])
async def test_a_crash_after_assigning_is_finished_by_the_retry(
    base: Foundation, questions: Questions, scene: Scene, remote: RemoteAssignments, expired_meanwhile: bool
) -> None:
    mine, rival = await ask(base, scene.faces, [(0, scene.anna, 0.9), (0, scene.bert, 0.6)])
    etag = (await questions.get(mine)).etag
    begun = await begin_accept(base.database, remote, AnswerSuggestion("default", UUID(mine), etag))
    assert (await owners(base)).get(scene.faces.face_ids[0]) == scene.anna.person_id
    assert not await questions.list()
    if expired_meanwhile:
        await expire_settled(base, scene.anna)
        assert (await questions.get(mine)).state == EXPIRED
    with pytest.raises(PreconditionFailed) as refused:
        await questions.reject(mine)
    assert refused.value.reason is Reason.SUGGESTION_NOT_PENDING
    answer = await questions.accept(mine, etag=etag)
    assert answer.suggestion.state == ACCEPTED
    assert answer.change_id == begun.change_id
    assert (await questions.get(rival)).state == EXPIRED
    assert await ledger(base) == [("FACES_ASSIGNED", 1)]
    assert await told(base) == [("ACCEPT", "anonymous")]


async def test_a_crash_after_excluding_is_finished_by_the_retry(
    base: Foundation, questions: Questions, scene: Scene, remote: RemoteAssignments
) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.9)])
    begun = await begin_reject(base.database, remote, AnswerSuggestion("default", UUID(mine)))
    with pytest.raises(PreconditionFailed) as refused:
        await questions.accept(mine)
    assert refused.value.reason is Reason.FACE_EXCLUDED
    answer = await questions.reject(mine)
    assert (answer.suggestion.state, answer.change_id) == (REJECTED, begun.change_id)
    assert await ledger(base) == [("FACE_EXCLUDED", 1)]
    assert await told(base) == [("REJECT", "anonymous")]


async def test_yes_to_a_face_that_somebody_else_was_given_is_refused_with_who_has_it(
    base: Foundation, people: People, questions: Questions, scene: Scene
) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.9)])
    await people.assign(scene.bert, scene.faces.face_ids[:1])
    with pytest.raises(PreconditionFailed) as refused:
        await questions.accept(mine)
    assert refused.value.reason is Reason.FACE_ALREADY_ASSIGNED
    assert refused.value.metadata["person_id"] == str(scene.bert.person_id)
    assert await told(base) == []


async def test_racing_yeses_to_one_question_are_one_yes(base: Foundation, questions: Questions, scene: Scene) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.9)])
    given = await asyncio.gather(*(questions.accept(mine, request_id=str(uuid4())) for _ in range(16)))
    assert {answer.suggestion.state for answer in given} == {ACCEPTED}
    assert len({answer.change_id for answer in given}) == 1
    assert await told(base) == [("ACCEPT", "anonymous")]
    assert await ledger(base) == [("FACES_ASSIGNED", 1)]


async def test_of_racing_yeses_to_two_questions_about_a_face_exactly_one_wins(
    base: Foundation, questions: Questions, scene: Scene
) -> None:
    pair = await ask(base, scene.faces, [(0, scene.anna, 0.9), (0, scene.bert, 0.8)])
    calls = [questions.accept(pair[turn % 2], request_id=str(uuid4())) for turn in range(16)]
    given = await asyncio.gather(*calls, return_exceptions=True)
    won = {answer.suggestion.person_id for answer in given if isinstance(answer, pb.AcceptSuggestionResponse)}
    lost = [answer for answer in given if isinstance(answer, BaseException)]
    assert len(won) == 1
    assert str((await owners(base))[scene.faces.face_ids[0]]) in won
    assert len(lost) == 8
    reasons = {error.reason for error in lost if isinstance(error, KithError)}
    assert reasons <= {Reason.FACE_ALREADY_ASSIGNED, Reason.SUGGESTION_NOT_PENDING}
    assert sorted([(await questions.get(each)).state for each in pair]) == [ACCEPTED, EXPIRED]
    assert len(await answers(base)) == 1


async def test_however_yes_and_no_race_the_suggestion_says_what_the_persons_service_holds(
    base: Foundation, questions: Questions, scene: Scene
) -> None:
    for row in range(3):
        (mine,) = await ask(base, scene.faces, [(row, scene.anna, 0.9)])
        calls = [call(mine, request_id=str(uuid4())) for _ in range(5) for call in (questions.accept, questions.reject)]
        given = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, KithError) for each in given if isinstance(each, BaseException))
        pair = (scene.faces.face_ids[row], scene.anna.person_id)
        state = (await questions.get(mine)).state
        if pair in await excluded(base):
            assert (state, (await owners(base)).get(pair[0])) == (REJECTED, None)
        else:
            assert (state, (await owners(base)).get(pair[0])) == (ACCEPTED, scene.anna.person_id)
