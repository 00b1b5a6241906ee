"""Many answers at once: what they do, and that each is given or refused with its reason."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
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
from services.suggestions.server import start as start_suggestions
from services.suggestions.wiring import build_deps
from shared.config import Settings
from shared.db.tables_persons import changes
from shared.db.tables_suggestions import suggestions
from shared.errors import InvalidRequest
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.asking import ask, expire_settled
from tests.integration.suggestions.conftest import Questions, Scene
from tests.integration.suggestions.reviewing import (
    ACCEPTED,
    CALLER,
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
    await expire_settled(base, scene.anna)
    async with base.database.transaction() as tx:
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


async def test_as_many_statements_for_two_hundred_as_for_two(
    base: Foundation, people: People, remote: RemoteAssignments
) -> None:
    faces = await seed_library(base, draw_people(1, 202))
    anna = await people.create("Anna")
    ids = await ask(base, faces, [(row, anna, 0.9) for row in range(202)])
    # So many answers are not due a job, whose statements come on top.
    patient = base.settings.suggestions.model_copy(update={"auto_find_more_after": 1000})
    deps = replace(build_deps(base), settings=patient)
    counts = []
    for part in (ids[:2], ids[2:]):
        said = [Answer.REJECT if index == 0 else Answer.ACCEPT for index in range(len(part))]
        command = ReviewSuggestions(
            "default", [Review(UUID(each), "1", answer) for each, answer in zip(part, said, strict=True)], uuid4()
        )
        with recording_statements(base.database) as sent:
            refused = await begin_reviews(base.database, remote, command)
            async with base.database.transaction() as tx:
                made = await finish_reviews(tx, deps, command, CALLER, refused)
        assert len(made.suggestions) == len(part)
        assert all(statement.executions == 1 for statement in sent)
        counts.append(len(sent))
    assert counts == [9, 9]


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
