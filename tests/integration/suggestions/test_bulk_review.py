"""Many answers at once: each is given or refused with its reason, and no retry, race or crash does one twice or by halves."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from kith.persons.v1 import persons_pb2
from kith.suggestions.v1 import suggestions_pb2 as pb
from services.persons.server import start as start_persons
from services.suggestions.adapters.persons import RemoteAssignments
from services.suggestions.domain.bulk_reviewing import (
    Answer,
    Review,
    ReviewSuggestions,
    begin_reviews,
    finish_reviews,
)
from services.suggestions.repository.questions import expire_settled
from services.suggestions.server import start as start_suggestions
from services.suggestions.wiring import build_deps
from shared.caller import Caller
from shared.config import Settings
from shared.db.tables_persons import changes
from shared.db.tables_suggestions import suggestions
from shared.errors import InvalidRequest, Reason, Unavailable
from shared.foundation import Foundation
from shared.jobs.model import ItemFailure
from shared.rpc.channel import open_channel
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces
from tests.integration.suggestions.album import People, Person, draw_people, seed_library
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
    ledger,
    owners,
    review,
    send,
)
from tests.integration.suggestions.test_acting_for_others import ANNA, require_tokens

CALLER = Caller("tester", "kith.suggestions.v1.BatchReviewSuggestions")


@dataclass(frozen=True, slots=True)
class Scene:
    """Two persons, and faces that may be either."""

    faces: SeededFaces
    anna: Person
    bert: Person


@pytest.fixture
async def scene(base: Foundation, people: People) -> Scene:
    faces = await seed_library(base, draw_people(1, 12))
    return Scene(faces, await people.create("Anna"), await people.create("Bert"))


@pytest.fixture
def remote(running: Running, people: People, stack: AsyncExitStack) -> RemoteAssignments:
    """The persons service as the suggestions server calls it, to do half an answer with."""
    settings = running.settings
    channel = open_channel(settings.services.persons, settings.rpc, settings.auth)
    stack.push_async_callback(channel.close)
    return RemoteAssignments(channel)


def failures(answer: pb.BatchReviewSuggestionsResponse) -> list[tuple[str, str]]:
    return [(failure.id, failure.reason) for failure in answer.failures]


async def test_yeses_are_one_change_a_person_and_noes_exclude_and_rivals_expire(
    base: Foundation, questions: Questions, scene: Scene
) -> None:
    asked = [
        (0, scene.anna, 0.9),
        (1, scene.anna, 0.8),
        (2, scene.bert, 0.7),
        (3, scene.anna, 0.6),
        (0, scene.bert, 0.5),
    ]
    one, two, three, four, rival = await ask(base, scene.faces, asked)
    answer = await send(questions, review(four, NO), review(one, YES), review(three, YES), review(two, YES))
    assert [(each.id, each.state) for each in answer.suggestions] == [
        (four, REJECTED),
        (one, ACCEPTED),
        (three, ACCEPTED),
        (two, ACCEPTED),
    ]
    assert {each.reviewed_by for each in answer.suggestions} == {"anonymous"}
    assert not answer.failures
    ids = scene.faces.face_ids
    anna, bert = scene.anna.person_id, scene.bert.person_id
    assert await owners(base) == {ids[0]: anna, ids[1]: anna, ids[2]: bert}
    assert await excluded(base) == {(ids[3], anna)}
    assert (await questions.get(rival)).state == EXPIRED
    assert not await questions.list()
    assert Counter(await ledger(base)) == Counter([("FACES_ASSIGNED", 2), ("FACES_ASSIGNED", 1), ("FACE_EXCLUDED", 1)])
    assert len(set(answer.change_ids)) == 3
    kept = {str(each["suggestion_id"]): (each["answer"], str(each["change_id"])) for each in await answers(base)}
    assert {name: said for name, (said, _) in kept.items()} == {
        one: "ACCEPT",
        two: "ACCEPT",
        three: "ACCEPT",
        four: "REJECT",
    }
    assert kept[one][1] == kept[two][1]
    assert {change_id for _, change_id in kept.values()} == set(answer.change_ids)
    # Said again one by one, each tells the change that was made for many.
    assert (await questions.accept(one)).change_id == kept[one][1]
    assert (await questions.reject(four)).change_id == kept[four][1]


async def test_what_cannot_be_answered_is_named_with_its_reason_and_the_rest_is_done(
    base: Foundation, people: People, questions: Questions, scene: Scene
) -> None:
    rows = [(row, scene.anna, 0.9) for row in range(8)]
    fine, bare, stale, taken, barred, expired, also_fine, mine = await ask(base, scene.faces, rows)
    ids = scene.faces.face_ids
    await people.assign(scene.bert, [ids[3]])
    await people.exclude(scene.anna, ids[4])
    await people.assign(scene.bert, [ids[5]])
    async with base.database.transaction() as tx:
        await expire_settled(tx, base.clock, [scene.anna.person_id])
        # As nobody had looked: only these two are still open.
        await tx.execute(
            suggestions.update()
            .where(suggestions.c.suggestion_id.in_([UUID(taken), UUID(barred)]))
            .values(state="PENDING", closed_at=None, version=1)
        )
    await people.assign(scene.anna, [ids[7]])
    nobody = str(uuid4())
    answer = await send(
        questions,
        review(fine, YES),
        review(bare, YES, etag=""),
        review(stale, YES, etag="7"),
        review(taken, YES),
        review(barred, YES),
        review(expired, YES),
        review(nobody, NO),
        review(also_fine, NO),
        review(mine, NO),
    )
    assert failures(answer) == [
        (bare, "ETAG_REQUIRED"),
        (stale, "ETAG_MISMATCH"),
        (taken, "FACE_ALREADY_ASSIGNED"),
        (barred, "FACE_EXCLUDED"),
        (expired, "SUGGESTION_NOT_PENDING"),
        (nobody, "RESOURCE_NOT_FOUND"),
        (mine, "SUGGESTION_NOT_PENDING"),
    ]
    assert [each.id for each in answer.suggestions] == [fine, also_fine]
    assert len(await answers(base)) == 2
    assert (await questions.get(bare)).state == PENDING
    assert failures(await send(questions, review(bare, YES), library_id="other")) == [(bare, "RESOURCE_NOT_FOUND")]


@pytest.mark.parametrize("said", [YES, NO])
async def test_five_hundred_answers_are_one_request(
    base: Foundation, people: People, questions: Questions, said: int
) -> None:
    faces = await seed_library(base, draw_people(1, 500))
    anna = await people.create("Anna")
    ids = await ask(base, faces, [(row, anna, 0.9) for row in range(500)])
    answer = await send(questions, *(review(each, said) for each in ids))
    assert [each.id for each in answer.suggestions] == ids
    assert not answer.failures
    assert len(answer.change_ids) == (1 if said == YES else 500)
    assert len(await owners(base)) == (500 if said == YES else 0)
    assert len(await excluded(base)) == (0 if said == YES else 500)


async def test_a_person_who_is_gone_refuses_theirs_and_no_others(
    base: Foundation, people: People, questions: Questions, scene: Scene
) -> None:
    one, two, three = await ask(base, scene.faces, [(0, scene.anna, 0.9), (1, scene.bert, 0.8), (2, scene.anna, 0.7)])
    found = await people.persons.GetPerson(persons_pb2.GetPersonRequest(person_id=str(scene.anna.person_id)))
    await people.persons.DeletePerson(
        persons_pb2.DeletePersonRequest(person_id=str(scene.anna.person_id), etag=found.person.etag)
    )
    async with base.database.transaction() as tx:
        await tx.execute(suggestions.update().values(state="PENDING", version=1, dormant=False))
    answer = await send(questions, review(one, YES), review(two, YES), review(three, NO))
    assert {reason for _, reason in failures(answer)} <= {"PERSON_NOT_ACTIVE", "RESOURCE_NOT_FOUND"}
    assert [each for each, _ in failures(answer)] == [one, three]
    assert [each.id for each in answer.suggestions] == [two]


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


@pytest.mark.parametrize("fields", [{"reviews": 0}, {"reviews": 501}, {"twice": 1}, {"answer": 0}, {"answer": 9}])
async def test_a_request_that_is_none_is_refused_as_a_whole(
    base: Foundation, questions: Questions, scene: Scene, fields: dict[str, int]
) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.9)])
    given = [review(str(uuid4()), YES) for _ in range(fields.get("reviews", 0))]
    if "twice" in fields:
        given = [review(mine, YES), review(mine, NO)]
    if "answer" in fields:
        given = [review(mine, fields["answer"])]
    with pytest.raises(InvalidRequest):
        await send(questions, *given)
    assert not await owners(base)


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
        async with base.database.transaction() as tx:
            await expire_settled(tx, base.clock, [scene.anna.person_id, scene.bert.person_id])
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


async def test_as_many_statements_for_two_hundred_as_for_two(
    base: Foundation, people: People, remote: RemoteAssignments
) -> None:
    faces = await seed_library(base, draw_people(1, 202))
    anna = await people.create("Anna")
    ids = await ask(base, faces, [(row, anna, 0.9) for row in range(202)])
    counts = []
    for part in (ids[:2], ids[2:]):
        said = [Answer.REJECT if index == 0 else Answer.ACCEPT for index in range(len(part))]
        command = ReviewSuggestions(
            "default", [Review(UUID(each), "1", answer) for each, answer in zip(part, said, strict=True)], uuid4()
        )
        with recording_statements(base.database) as sent:
            refused = await begin_reviews(base.database, remote, command)
            async with base.database.transaction() as tx:
                made = await finish_reviews(tx, build_deps(base), command, CALLER, refused)
        assert len(made.suggestions) == len(part)
        assert all(statement.executions == 1 for statement in sent)
        counts.append(len(sent))
    assert counts == [7, 7]


async def test_the_ledger_names_the_reviewer(
    base: Foundation, settings: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    running = Running(require_tokens(settings, tmp_path / "t.json", "read", "write", "admin", "act_for_others"), stack)
    people = People(await running.server("persons", start_persons))
    questions = Questions(base, await running.server("suggestions", start_suggestions))
    faces = await seed_library(base, draw_people(1, 2))
    bert = await people.create("Bert")
    yes, no = await ask(base, faces, [(0, bert, 0.9), (1, bert, 0.8)])
    request = pb.BatchReviewSuggestionsRequest(reviews=[review(yes, YES), review(no, NO)])
    answer = await questions.suggestions.BatchReviewSuggestions(request, metadata=ANNA)
    assert {each.reviewed_by for each in answer.suggestions} == {"Änna"}
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(changes.c.rpc, changes.c.actor))
    by_rpc = {row.rpc.rpartition(".")[2]: row.actor for row in rows}
    assert by_rpc == {"CreatePerson": "kith", "BatchAssignFaces": "Änna", "ExcludeFace": "Änna"}
    assert {each["reviewer"] for each in await answers(base)} == {"Änna"}


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


async def test_the_service_being_away_fails_the_call_and_refuses_nothing(
    base: Foundation, scene: Scene, remote: RemoteAssignments
) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.9)])
    command = ReviewSuggestions("default", [Review(UUID(mine), "1", Answer.ACCEPT)], uuid4())
    with pytest.raises(Unavailable):
        await begin_reviews(base.database, Failing(remote, 0), command)
    assert not await answers(base)
