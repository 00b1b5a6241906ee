"""ExplainSuggestion: a question as it was asked, and its pair as it is today."""

from __future__ import annotations

from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import update

from kith.common.v1 import types_pb2
from kith.persons.v1 import prototypes_pb2
from services.suggestions.domain.model import Evidence, ExemplarMatch
from shared.db.tables_persons import persons
from shared.db.tables_suggestions import suggestions
from shared.errors import NotFound
from shared.foundation import Foundation
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.conftest import Questions
from tests.integration.suggestions.matching import assert_alike, explain


async def test_today_is_as_it_was_while_nothing_has_changed(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(2, 5))
    anna = await people.create("Anna", born=types_pb2.Date(year=1990))
    bert = await people.create("Bert")
    await people.assign(anna, faces.face_ids[:3])
    await people.assign(bert, faces.face_ids[5:8])
    await questions.find_more()
    for asked in await questions.list():
        found = await explain(base, questions, asked.id)
        assert found.suggestion == asked
        assert found.today.person_id == asked.person_id
        assert_alike(found.today.evidence, asked.evidence)
        assert found.today.confidence == pytest.approx(asked.confidence, abs=1e-5)
        assert found.today.blocked_by == []
    (hers, _) = await questions.list(person_id=str(anna.person_id))
    assert {each.era for each in hers.evidence.exemplars} == {types_pb2.ERA_YOUNG_ADULT}
    assert prototypes_pb2.PROTOTYPE_ROLE_UNSPECIFIED not in {each.role for each in hers.evidence.exemplars}


async def test_what_came_since_shows_today_and_leaves_the_evidence_of_then(
    base: Foundation, people: People, questions: Questions
) -> None:
    vectors = draw_people(2, 6)
    vectors[3] = 0.8 * vectors[3] + 0.5 * vectors[9]
    vectors[3] /= np.linalg.norm(vectors[3])
    faces = await seed_library(base, vectors)
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more(min_confidence=0.0)
    (asked,) = await questions.list(face_id=str(faces.face_ids[3]))
    assert not asked.evidence.HasField("margin")
    bert = await people.create("Bert")
    await people.assign(bert, faces.face_ids[6:9])
    found = await explain(base, questions, asked.id)
    assert not found.suggestion.evidence.HasField("margin")
    assert found.today.evidence.runner_up_person_id == str(bert.person_id)
    assert found.today.evidence.margin < found.today.evidence.score
    await questions.reject(asked.id)
    found = await explain(base, questions, asked.id)
    assert found.today.blocked_by == ["excluded", "rejected"]
    await people.assign(bert, [faces.face_ids[3]])
    found = await explain(base, questions, asked.id)
    assert found.today.blocked_by == ["excluded", "rejected", "assigned"]


async def test_a_person_of_whom_nothing_is_left(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 4))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    await questions.find_more()
    (asked, *_) = await questions.list()
    await people.unassign(faces.face_ids[0])
    found = await explain(base, questions, asked.id)
    assert (found.today.blocked_by, found.today.HasField("evidence")) == (["nothing known"], False)
    assert found.suggestion.evidence.score > 0
    async with base.database.transaction() as tx:
        gone = update(persons).where(persons.c.person_id == anna.person_id).values(deleted_at=base.clock.now())
        await tx.execute(gone)
    found = await explain(base, questions, asked.id)
    assert (found.today.person_id, found.today.blocked_by) == (str(anna.person_id), ["person gone"])


async def test_evidence_that_was_stored_before_eras_and_roles_were_kept(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 3))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    await questions.find_more()
    (asked, _) = await questions.list()
    stored = Evidence(0.6, None, None, 1, (ExemplarMatch(faces.face_ids[0], 0.6),), 0.8, None).to_json()
    stored["exemplars"] = [{"face_id": str(faces.face_ids[0]), "cosine": 0.6}]
    async with base.database.transaction() as tx:
        await tx.execute(
            update(suggestions).where(suggestions.c.suggestion_id == UUID(asked.id)).values(evidence=stored)
        )
    (shown,) = (await explain(base, questions, asked.id)).suggestion.evidence.exemplars
    assert (shown.era, shown.role) == (types_pb2.ERA_UNSPECIFIED, prototypes_pb2.PROTOTYPE_ROLE_UNSPECIFIED)
    assert shown.cosine == pytest.approx(0.6)


async def test_what_cannot_be_explained(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 3))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    await questions.find_more()
    (asked, _) = await questions.list()
    with pytest.raises(NotFound):
        await explain(base, questions, str(uuid4()))
    with pytest.raises(NotFound):
        await explain(base, questions, asked.id, library_id="other")
