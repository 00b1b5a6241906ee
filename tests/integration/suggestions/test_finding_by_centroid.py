"""Find-more jobs by centroid, which the clustering service keeps and searches."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import update

from bench.embeddings import generate_faces
from kith.suggestions.v1 import suggestions_pb2
from services.clustering.server import start as start_clustering
from shared.db.tables_detection import assets
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.conftest import Questions, start_questions, summarise

CENTROID = suggestions_pb2.SUGGESTION_METHOD_CENTROID


@pytest.fixture
async def questions(running: Running, people: People, base: Foundation) -> Questions:
    """A suggestions server and worker, with the clustering server they ask."""
    await running.server("clustering", start_clustering)
    return await start_questions(running, base)


async def test_the_faces_found_in_a_generated_library_are_the_right_ones(
    base: Foundation, people: People, questions: Questions
) -> None:
    drawn = generate_faces(900, seed=5)
    faces = await seed_library(base, drawn.vectors, qualities=[float(each) for each in drawn.quality])
    names, sizes = np.unique(drawn.truth[drawn.truth >= 0], return_counts=True)
    truth: dict[UUID, UUID] = {}
    labelled: set[UUID] = set()
    for number in names[np.argsort(-sizes)][:12]:
        rows = [int(row) for row in np.flatnonzero(drawn.truth == number)]
        person = await people.create(f"Person {number}")
        chosen = [faces.face_ids[row] for row in sorted(rows, key=lambda row: -drawn.quality[row])[:5]]
        await people.assign(person, chosen)
        labelled |= set(chosen)
        truth |= {faces.face_ids[row]: person.person_id for row in rows}
    await questions.find_more(method=CENTROID)
    found = await questions.list()
    asked = summarise(found)
    right = sum(truth.get(face_id) == person_id for face_id, person_id in asked.items())
    assert right / len(asked) >= 0.9
    assert right / len(set(truth) - labelled) >= 0.6
    assert {each.method for each in found} == {CENTROID}


async def test_what_was_rejected_by_one_way_is_not_found_by_the_other(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 5))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more()
    first, second, third = await questions.list()
    await questions.reject(first.id)
    await people.exclude(anna, faces.face_ids[4])
    for method in (CENTROID, suggestions_pb2.SUGGESTION_METHOD_PROTOTYPES, CENTROID):
        job = await questions.find_more(method=method)
        assert MessageToDict(job.result)["created"] == 0
    rejected = str(faces.face_ids[4])
    left = [each for each in (second, third) if each.face_id != rejected]
    assert [(each.id, each.method) for each in await questions.list()] == [(each.id, each.method) for each in left]


async def test_a_near_duplicate_of_an_open_question_is_not_asked_about(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 6))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more(max_per_person=1)
    (asked,) = await questions.list()
    async with base.database.transaction() as tx:
        await tx.execute(
            update(assets)
            .where(assets.c.asset_id.in_(faces.asset_ids[2:]))
            .values(captured_at=datetime(2021, 1, 1, tzinfo=UTC), difference_hash=-1)
        )
    await questions.find_more(method=CENTROID)
    assert [each.id for each in await questions.list()] == [asked.id]
