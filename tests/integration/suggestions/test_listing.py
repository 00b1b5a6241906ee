"""ListSuggestions and GetSuggestionStats: order, pages, filters."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from kith.suggestions.v1 import suggestions_pb2 as pb
from shared.db.tables_detection import faces as face_table
from shared.errors import InvalidRequest, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.clusters import put_in_cluster
from tests.integration.suggestions.conftest import Questions


async def read_pages(questions: Questions, size: int, *, token: str = "", **fields: Any) -> list[pb.Suggestion]:
    """Every suggestion that passes a filter, page by page."""
    found: list[pb.Suggestion] = []
    while True:
        request = pb.ListSuggestionsRequest(page_size=size, page_token=token, **fields)
        async with translate_errors("suggestions"):
            answer = await questions.suggestions.ListSuggestions(request)
        assert len(answer.suggestions) <= size
        found += answer.suggestions
        token = answer.next_page_token
        if not token:
            return found


async def test_pages_come_surest_first_each_once_while_others_are_asked(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 30))
    anna = await people.create("Anna")
    ids = await ask(base, faces, [(row, anna, 0.5 + row % 5 / 10) for row in range(25)])
    found = await read_pages(questions, 4)
    assert {each.id for each in found} == set(ids)
    assert len(found) == len(ids)
    keys = [(each.confidence, each.id) for each in found]
    assert keys == sorted(keys, reverse=True)
    request = pb.ListSuggestionsRequest(page_size=10)
    first = await questions.suggestions.ListSuggestions(request)
    new = await ask(base, faces, [(row, anna, 0.95) for row in range(25, 30)])
    rest = await questions.suggestions.ListSuggestions(
        pb.ListSuggestionsRequest(page_size=10, page_token=first.next_page_token)
    )
    assert [each.id for each in (*first.suggestions, *rest.suggestions)] == [each.id for each in found[:20]]
    assert {each.id for each in await questions.list(min_confidence=0.91)} == set(new)


async def test_filters_hold_together_and_a_token_belongs_to_its_filter(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 6))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    ids = await ask(
        base,
        faces,
        [(0, anna, 0.9), (1, anna, 0.8), (2, anna, 0.7), (0, bert, 0.6), (3, bert, 0.5)],
    )
    await put_in_cluster(base, faces, rows=[0, 3])
    await questions.reject(ids[1])

    async def listed(**fields: object) -> list[str]:
        return [each.id for each in await questions.list(**fields)]

    assert await listed() == [ids[0], ids[2], ids[3], ids[4]]
    assert await listed(person_id=str(anna.person_id)) == [ids[0], ids[2]]
    assert await listed(face_id=str(faces.face_ids[0])) == [ids[0], ids[3]]
    assert await listed(cluster_id="clu_0123456789ab") == [ids[0], ids[3], ids[4]]
    assert await listed(cluster_id="clu_0123456789ab", person_id=str(bert.person_id)) == [ids[3], ids[4]]
    assert await listed(states=[pb.SUGGESTION_STATE_REJECTED]) == [ids[1]]
    assert await listed(states=[pb.SUGGESTION_STATE_REJECTED, pb.SUGGESTION_STATE_PENDING]) == ids
    assert await listed(min_confidence=0.65) == [ids[0], ids[2]]
    assert [each.cluster_id for each in await questions.list(face_id=str(faces.face_ids[0]))] == [
        "clu_0123456789ab"
    ] * 2
    assert not await listed(library_id="other")
    answer = await questions.suggestions.ListSuggestions(pb.ListSuggestionsRequest(page_size=1))
    with pytest.raises(InvalidRequest) as refused:
        await read_pages(questions, 1, token=answer.next_page_token, min_confidence=0.2)
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID
    for fields in ({"min_confidence": 2.0}, {"states": [0]}, {"cluster_id": "7"}, {"person_id": "Anna"}):
        with pytest.raises(InvalidRequest):
            await read_pages(questions, 1, **fields)


async def test_questions_about_what_is_no_face_or_nobody_are_hidden_and_not_counted(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 6))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    ids = await ask(base, faces, [(row, anna, 0.9 - row / 10) for row in range(4)] + [(4, bert, 0.5)])
    await questions.accept(ids[0])
    await people.exclude(anna, faces.face_ids[1])
    async with base.database.transaction() as tx:
        await tx.execute(update(face_table).where(face_table.c.face_id == faces.face_ids[2]).values(state="NOT_A_FACE"))
    assert [each.id for each in await questions.list()] == [ids[3], ids[4]]
    stats = await questions.suggestions.GetSuggestionStats(pb.GetSuggestionStatsRequest())
    assert (stats.pending, stats.accepted, stats.rejected, stats.expired) == (2, 1, 0, 0)
    by_person = {each.person_id: (each.pending, each.accepted, each.rejected) for each in stats.persons}
    assert by_person == {str(anna.person_id): (1, 1, 0), str(bert.person_id): (1, 0, 0)}
