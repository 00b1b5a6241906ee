"""How many faces of a person are still to be found, counted without asking anybody."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from kith.suggestions.v1 import discovery_pb2
from services.suggestions.adapters.faces import IndexedFaceSearch
from services.suggestions.domain.completeness import estimate_completeness
from services.suggestions.wiring import build_deps
from shared.db.tables_persons import persons
from shared.errors import NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from shared.vectors.faces import FaceIndex
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.suggestions.album import People, Person, draw_people, seed_library, wait_indexed
from tests.integration.suggestions.conftest import Questions, start_questions


async def estimate(
    base: Foundation, questions: Questions, person: Person
) -> discovery_pb2.EstimateCompletenessResponse:
    await wait_indexed(base)
    request = discovery_pb2.EstimateCompletenessRequest(person_id=str(person.person_id))
    async with translate_errors("suggestions"):
        return await questions.discovery.EstimateCompleteness(request)


async def test_what_is_missing_is_counted_and_nothing_is_stored(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(2, 20, likeness=0.85))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:4])
    await people.assign(bert, faces.face_ids[20:22])
    found = await estimate(base, questions, anna)
    assert (found.assigned, found.candidates, found.extrapolated) == (4, 16, False)
    assert found.missing == pytest.approx(16, rel=0.05)
    assert found.missing_low < found.missing < found.missing_high <= 20
    assert not await questions.list()
    await people.exclude(anna, faces.face_ids[4])
    await people.assign(anna, faces.face_ids[5:10])
    found = await estimate(base, questions, anna)
    assert (found.assigned, found.candidates) == (9, 10)


async def test_answers_narrow_the_interval(base: Foundation, people: People, questions: Questions) -> None:
    # Alike enough to be asked about, and not enough to be sure.
    faces = await seed_library(base, draw_people(1, 40, likeness=0.65))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    before = await estimate(base, questions, anna)
    await questions.find_more(anna, min_confidence=0.0)
    asked = await questions.list()
    for each in asked[: len(asked) // 2]:
        await questions.reject(each.id)
    after = await estimate(base, questions, anna)
    assert after.candidates == before.candidates - len(asked) // 2

    def width(found: discovery_pb2.EstimateCompletenessResponse) -> float:
        return (found.missing_high - found.missing_low) / found.candidates

    assert width(after) < width(before)


async def test_more_candidates_than_are_looked_at_are_extrapolated(
    base: Foundation, people: People, running: Running
) -> None:
    limited = running.settings.suggestions.model_copy(update={"completeness_candidates": 10})
    running.settings = running.settings.model_copy(update={"suggestions": limited})
    questions = await start_questions(running, base)
    faces = await seed_library(base, draw_people(1, 60, likeness=0.75))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    found = await estimate(base, questions, anna)
    assert (found.candidates, found.extrapolated) == (10, True)
    assert found.missing > 10
    assert found.missing_high > 2 * found.missing - 10


async def test_one_search_and_as_many_statements_however_much_is_found(
    base: Foundation, people: People, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = await seed_library(base, draw_people(2, 20))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:15])
    await people.assign(bert, faces.face_ids[20:21])
    await wait_indexed(base)
    searches = 0
    search = base.qdrant.query_batch_points

    async def count_search(*args: Any, **kwargs: Any) -> Any:
        nonlocal searches
        searches += 1
        return await search(*args, **kwargs)

    monkeypatch.setattr(base.qdrant, "query_batch_points", count_search)
    census = IndexedFaceSearch(FaceIndex(base.qdrant, base.collections))
    sent = []
    for person, missing in ((anna, 5), (bert, 19)):
        with recording_statements(base.database) as statements:
            found = await estimate_completeness(base.database, build_deps(base), census, "default", person.person_id)
        assert found.candidates == missing
        sent.append(len(statements))
    assert (sent, searches) == ([7, 7], 2)


async def test_persons_without_faces_miss_none_and_others_are_refused(
    base: Foundation, people: People, questions: Questions
) -> None:
    anna = await people.create("Anna")
    found = await estimate(base, questions, anna)
    assert (found.assigned, found.missing, found.missing_high) == (0, 0, 0)
    faces = await seed_library(base, draw_people(1, 2))
    found = await estimate(base, questions, anna)
    assert (found.candidates, found.missing) == (0, 0)
    with pytest.raises(NotFound):
        await estimate(base, questions, Person(uuid4(), "Nobody"))
    await people.assign(anna, faces.face_ids)
    async with base.database.transaction() as tx:
        gone = update(persons).where(persons.c.person_id == anna.person_id)
        await tx.execute(gone.values(deleted_at=base.clock.now()))
    with pytest.raises(PreconditionFailed) as refused:
        await estimate(base, questions, anna)
    assert refused.value.reason is Reason.PERSON_NOT_ACTIVE
