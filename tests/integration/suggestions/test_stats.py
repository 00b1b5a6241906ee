"""GetSuggestionStats: what was asked and how it was answered, by person, by method and by day."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.servicers.review import get_suggestion_stats
from services.suggestions.wiring import build_deps
from shared.db.tables_suggestions import suggestions
from shared.errors import InvalidRequest
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.counting import recording_statements
from tests.integration.suggestions.album import People, Person, draw_people, seed_library
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.conftest import Questions
from tests.integration.suggestions.reviewing import NO, YES, review, send

HOUR = timedelta(hours=1)


async def stats(questions: Questions, **fields: Any) -> pb.GetSuggestionStatsResponse:
    async with translate_errors("suggestions"):
        return await questions.suggestions.GetSuggestionStats(pb.GetSuggestionStatsRequest(**fields))


def shown(answers: pb.AnswerStats) -> tuple[int, int, int, float | None, float | None]:
    """(asked, accepted, rejected, precision, hours to the answer)."""
    return (
        answers.asked,
        answers.accepted,
        answers.rejected,
        round(answers.precision, 3) if answers.HasField("precision") else None,
        answers.median_time_to_answer.ToTimedelta() / HOUR if answers.HasField("median_time_to_answer") else None,
    )


async def answer_all(base: Foundation, people: People, questions: Questions) -> tuple[Person, Person]:
    """Six questions of two methods: asked two days ago at noon, answered yesterday at 13, 14, 16 and today."""
    faces = await seed_library(base, draw_people(1, 8))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    asked = [(row, anna, 0.9) for row in range(4)] + [(4, bert, 0.8), (5, bert, 0.7)]
    ids = await ask(base, faces, asked)
    await send(questions, *(review(each, YES) for each in ids[:3]), review(ids[4], NO))
    noon = base.clock.now().replace(hour=12, minute=0, second=0, microsecond=0)
    answered = {0: noon - timedelta(hours=23), 1: noon - timedelta(hours=22), 2: noon - timedelta(hours=20), 4: noon}
    async with base.database.transaction() as tx:
        await tx.execute(update(suggestions).values(created_at=noon - timedelta(days=2)))
        # Asked again a day after it was first: it waited for its answer from then.
        again = suggestions.c.suggestion_id == UUID(ids[4])
        await tx.execute(update(suggestions).where(again).values(asked_at=noon - timedelta(days=1)))
        for row, at in answered.items():
            mine = suggestions.c.suggestion_id == UUID(ids[row])
            await tx.execute(update(suggestions).where(mine).values(closed_at=at))
        centroid = suggestions.c.suggestion_id.in_([UUID(ids[3]), UUID(ids[4])])
        await tx.execute(update(suggestions).where(centroid).values(method="CENTROID"))
    return anna, bert


async def test_counts_precision_and_time_to_answer_by_person_and_method(
    base: Foundation, people: People, questions: Questions
) -> None:
    anna, bert = await answer_all(base, people, questions)
    found = await stats(questions)
    assert (found.pending, found.accepted, found.rejected, found.expired) == (2, 3, 1, 0)
    assert shown(found.answers) == (6, 3, 1, 0.75, 25.5)
    by_person = {each.person_id: (each.pending, shown(each.answers)) for each in found.persons}
    assert by_person == {
        str(anna.person_id): (1, (4, 3, 0, 1.0, 26.0)),
        str(bert.person_id): (1, (2, 0, 1, 0.0, 24.0)),
    }
    assert [(each.method, shown(each.answers)) for each in found.methods] == [
        (pb.SUGGESTION_METHOD_CENTROID, (2, 0, 1, 0.0, 24.0)),
        (pb.SUGGESTION_METHOD_PROTOTYPES, (4, 3, 0, 1.0, 26.0)),
    ]


async def test_a_day_counts_what_was_asked_and_what_was_answered_on_it(
    base: Foundation, people: People, questions: Questions
) -> None:
    await answer_all(base, people, questions)
    today = base.clock.now().date()
    found = await stats(questions)
    days = [(each.day.year, each.day.month, each.day.day) for each in found.days]
    assert days == [
        (day.year, day.month, day.day) for day in (today, today - timedelta(days=1), today - timedelta(days=2))
    ]
    assert [shown(each.answers) for each in found.days] == [
        (0, 0, 1, 0.0, 24.0),
        (1, 3, 0, 1.0, 26.0),
        (5, 0, 0, None, None),
    ]
    assert len((await stats(questions, days=2)).days) == 2
    assert len((await stats(questions, days=1)).days) == 1


async def test_named_persons_are_counted_also_without_open_questions(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 3))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    one, _ = await ask(base, faces, [(0, anna, 0.9), (1, bert, 0.8)])
    await questions.accept(one)
    assert [each.person_id for each in (await stats(questions)).persons] == [str(bert.person_id)]
    (found,) = (await stats(questions, person_ids=[str(anna.person_id)])).persons
    assert (found.person_id, found.pending, found.accepted) == (str(anna.person_id), 0, 1)


async def test_an_empty_library_has_no_precision(questions: Questions) -> None:
    found = await stats(questions, library_id="other")
    assert shown(found.answers) == (0, 0, 0, None, None)
    assert (len(found.persons), len(found.methods), len(found.days)) == (0, 0, 0)


@pytest.mark.parametrize(
    "fields", [{"days": -1}, {"person_ids": ["Anna"]}, {"person_ids": [str(uuid4()) for _ in range(501)]}]
)
async def test_a_wrong_request_is_refused(questions: Questions, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await stats(questions, **fields)


async def test_four_statements_however_many_questions(base: Foundation, people: People, questions: Questions) -> None:
    await answer_all(base, people, questions)
    with recording_statements(base.database) as sent:
        await get_suggestion_stats(base.database, build_deps(base), pb.GetSuggestionStatsRequest())
    assert len(sent) == 4
