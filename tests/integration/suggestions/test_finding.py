"""Find-more jobs by prototypes: the right faces, with true evidence, and never what was refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import select, update

from bench.embeddings import generate_faces
from kith.common.v1 import types_pb2
from kith.persons.v1 import assignments_pb2
from kith.suggestions.v1 import discovery_pb2, suggestions_pb2
from shared.db.outbox import queue_faces
from shared.db.tables_detection import assets
from shared.db.tables_suggestions import suggestions
from shared.errors import InvalidRequest, NotFound
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.suggestions.album import CALIBRATION, People, draw_people, seed_library
from tests.integration.suggestions.conftest import Questions, start_questions, summarise


async def test_the_faces_found_in_a_generated_library_are_the_right_ones(
    base: Foundation, people: People, questions: Questions
) -> None:
    drawn = generate_faces(900, seed=3)
    faces = await seed_library(base, drawn.vectors, qualities=[float(each) for each in drawn.quality])
    names, sizes = np.unique(drawn.truth[drawn.truth >= 0], return_counts=True)
    known = names[np.argsort(-sizes)][:12]
    truth: dict[UUID, UUID] = {}
    labelled: set[UUID] = set()
    for number in known:
        rows = [int(row) for row in np.flatnonzero(drawn.truth == number)]
        person = await people.create(f"Person {number}")
        best = sorted(rows, key=lambda row: -drawn.quality[row])[:5]
        await people.assign(person, [faces.face_ids[row] for row in best])
        labelled |= {faces.face_ids[row] for row in best}
        truth |= {faces.face_ids[row]: person.person_id for row in rows}
    job = await questions.find_more()
    asked = summarise(await questions.list())
    assert not set(asked) & labelled
    right = sum(truth.get(face_id) == person_id for face_id, person_id in asked.items())
    wanted = len(set(truth) - labelled)
    assert right / len(asked) >= 0.9
    assert right / wanted >= 0.7
    result = MessageToDict(job.result)
    assert (result["persons"], result["created"], result["kept"]) == (12, len(asked), 0)
    assert job.progress.done == job.progress.total == 12
    etags = {each.id: each.etag for each in await questions.list()}
    again = MessageToDict((await questions.find_more()).result)
    assert {each.id: each.etag for each in await questions.list()} == etags
    assert (again["created"], again["kept"]) == (0, len(asked))


async def test_evidence_says_what_the_vectors_say(base: Foundation, people: People, questions: Questions) -> None:
    vectors = draw_people(2, 5)
    vectors[4] = np.sqrt(0.8) * vectors[4] + np.sqrt(0.2) * vectors[9]
    vectors[4] /= np.linalg.norm(vectors[4])
    faces = await seed_library(base, vectors, qualities=[0.8, 0.7, 0.9, 0.6, 0.5] * 2)
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:3])
    await people.assign(bert, faces.face_ids[5:8])
    await questions.find_more(anna)
    (found,) = await questions.list(face_id=str(faces.face_ids[4]))
    cosines = vectors @ vectors[4]
    order = sorted(range(3), key=lambda row: -cosines[row])
    assert found.person_id == str(anna.person_id)
    assert found.evidence.score == pytest.approx(cosines[:3].max(), abs=2e-3)
    assert found.evidence.margin == pytest.approx(cosines[:3].max() - cosines[5:8].max(), abs=2e-3)
    assert found.evidence.runner_up_person_id == str(bert.person_id)
    assert found.evidence.support == 3
    assert [each.face_id for each in found.evidence.exemplars] == [str(faces.face_ids[row]) for row in order]
    assert found.evidence.exemplars[0].cosine == pytest.approx(cosines[order[0]], abs=2e-3)
    assert found.evidence.quality == pytest.approx(0.5)
    assert not found.evidence.HasField("era_score")
    expected = CALIBRATION.confidence(found.evidence.score, found.evidence.margin, 3)
    assert found.confidence == pytest.approx(expected, abs=1e-5)
    assert (found.method, found.state) == (
        suggestions_pb2.SUGGESTION_METHOD_PROTOTYPES,
        suggestions_pb2.SUGGESTION_STATE_PENDING,
    )
    assert found.asset_id == faces.asset_ids[4]


async def test_a_face_is_suggested_to_its_best_person_and_excluded_ones_to_the_next(
    base: Foundation, people: People, questions: Questions
) -> None:
    vectors = draw_people(2, 4)
    between = 0.8 * vectors[0] + 0.6 * vectors[4]
    vectors[3] = between / np.linalg.norm(between)
    faces = await seed_library(base, vectors)
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:2])
    await people.assign(bert, faces.face_ids[4:6])
    await questions.find_more(min_confidence=0.0)
    asked = await questions.pairs(face_id=str(faces.face_ids[3]))
    assert asked == {(faces.face_ids[3], anna.person_id)}
    await people.exclude(anna, faces.face_ids[3])
    assert not await questions.pairs(face_id=str(faces.face_ids[3]))
    await questions.find_more(min_confidence=0.0)
    assert await questions.pairs(face_id=str(faces.face_ids[3])) == {(faces.face_ids[3], bert.person_id)}


async def test_a_pair_excluded_elsewhere_gives_its_place_to_another_question(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 6))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more(max_per_person=1)
    (first,) = await questions.list()
    await people.exclude(anna, UUID(first.face_id))
    await questions.find_more(max_per_person=1)
    (second,) = await questions.list()
    assert second.face_id != first.face_id
    assert (await questions.get(first.id)).state == suggestions_pb2.SUGGESTION_STATE_EXPIRED


async def test_a_rejected_pair_is_never_asked_again(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 4))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more()
    first, second = await questions.list()
    await questions.reject(first.id)
    for _ in range(2):
        job = await questions.find_more()
        assert MessageToDict(job.result)["created"] == 0
        assert [each.id for each in await questions.list()] == [second.id]
    assert (await questions.get(first.id)).state == suggestions_pb2.SUGGESTION_STATE_REJECTED


async def test_a_rejection_that_was_taken_back_may_be_asked_again(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 3))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more()
    (asked,) = await questions.list()
    # Twice: the second no is as good as the first, though it is the same question.
    for round_ in range(2):
        await questions.reject(asked.id)
        await questions.find_more()
        assert await questions.list() == []
        request = assignments_pb2.ListExclusionsRequest(face_id=asked.face_id)
        (exclusion,) = (await people.assignments.ListExclusions(request)).exclusions
        await people.assignments.DeleteExclusion(
            assignments_pb2.DeleteExclusionRequest(exclusion_id=exclusion.id, request_id=str(uuid4()))
        )
        await questions.find_more()
        (again,) = await questions.list()
        assert (again.id, again.reviewed_by, again.etag != asked.etag) == (asked.id, "", True), round_
    await questions.accept(asked.id)


async def test_nobody_is_suggested_before_their_birth(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 6))
    # The year of birth, of which only the month is known: before it, in it, after it; and a photo of an unknown day.
    taken = {
        2: (datetime(2009, 7, 1, tzinfo=UTC), "SECOND"),
        3: (datetime(2010, 5, 31, tzinfo=UTC), "DAY"),
        4: (datetime(2010, 1, 1, tzinfo=UTC), "YEAR"),
        5: (None, None),
    }
    async with base.database.transaction() as tx:
        for row, (moment, precision) in taken.items():
            await tx.execute(
                update(assets)
                .where(assets.c.asset_id == faces.asset_ids[row])
                .values(captured_at=moment, captured_precision=precision)
            )
    anna = await people.create("Anna", born=types_pb2.Date(year=2010, month=6))
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more()
    assert set(summarise(await questions.list())) == {faces.face_ids[4], faces.face_ids[5]}


async def test_what_may_not_be_asked_never_crowds_out_what_may(
    base: Foundation, people: People, running: Running
) -> None:
    limited = running.settings.suggestions.model_copy(update={"candidates_per_query": 2})
    running.settings = running.settings.model_copy(update={"suggestions": limited})
    questions = await start_questions(running, base)
    vectors = draw_people(1, 7)
    faces = await seed_library(base, vectors)
    nearest = sorted(range(1, 7), key=lambda row: -float(vectors[0] @ vectors[row]))
    async with base.database.transaction() as tx:
        await tx.execute(
            update(assets)
            .where(assets.c.asset_id.in_([faces.asset_ids[row] for row in nearest[:2]]))
            .values(captured_at=datetime(2005, 1, 1, tzinfo=UTC))
        )
        await queue_faces(tx, base.clock, "default", [faces.face_ids[row] for row in nearest[:2]])
    anna = await people.create("Anna", born=types_pb2.Date(year=2010))
    await people.assign(anna, faces.face_ids[:1])
    for row in nearest[2:4]:
        await people.exclude(anna, faces.face_ids[row])
    await questions.find_more()
    assert set(summarise(await questions.list())) == {faces.face_ids[row] for row in nearest[4:]}


async def test_near_duplicate_photos_are_one_question_and_two_faces_of_a_photo_two(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 8), faces_per_photo=2)
    moment = datetime(2021, 1, 1, tzinfo=UTC)
    async with base.database.transaction() as tx:
        # Photos 1 and 2 are of one moment, photo 3 looks the same a year later.
        for photo, (year, bits) in {1: (2021, 0b0), 2: (2021, 0b111), 3: (2022, 0b0)}.items():
            await tx.execute(
                update(assets)
                .where(assets.c.asset_id == faces.asset_ids[2 * photo])
                .values(captured_at=moment.replace(year=year), difference_hash=bits)
            )
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more()
    asked = await questions.list()
    photos = [each.asset_id for each in asked]
    assert len(asked) == 4
    assert photos.count(faces.asset_ids[6]) == 2
    assert photos.count(faces.asset_ids[2]) + photos.count(faces.asset_ids[4]) == 2
    before = {each.id for each in asked}
    await questions.find_more()
    assert {each.id for each in await questions.list()} == before


async def test_another_face_of_the_person_in_the_photo_is_noted_and_still_asked(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 4), faces_per_photo=2)
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    await questions.find_more()
    assert set(summarise(await questions.list())) == set(faces.face_ids[1:])
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(suggestions.c.face_id, suggestions.c.evidence))
    noted = {row.face_id for row in rows if row.evidence["same_photo"]}
    assert noted == {faces.face_ids[1]}


async def test_a_question_settled_elsewhere_is_hidden_then_expired_then_asked_again_if_it_opens(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 3))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more(anna)
    (asked,) = await questions.list()
    await people.assign(bert, faces.face_ids[2:])
    assert not await questions.list()
    await questions.find_more(anna)
    expired = await questions.get(asked.id)
    assert expired.state == suggestions_pb2.SUGGESTION_STATE_EXPIRED
    assert expired.etag != asked.etag
    await people.unassign(faces.face_ids[2])
    job = await questions.find_more(anna)
    assert MessageToDict(job.result)["created"] == 1
    (again,) = await questions.list()
    assert (again.id, again.HasField("close_time")) == (asked.id, False)


async def test_at_most_so_many_questions_are_open_per_person(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 12))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await questions.find_more(anna, max_per_person=4)
    first = await questions.list()
    assert len(first) == 4
    await questions.find_more(anna, max_per_person=4)
    assert {each.id for each in await questions.list()} == {each.id for each in first}
    await questions.find_more(anna, max_per_person=6, min_confidence=0.2)
    assert len(await questions.list()) == 6


async def test_bad_requests_are_refused_by_name(base: Foundation, people: People, questions: Questions) -> None:
    async def ask(**fields: Any) -> None:
        async with translate_errors("suggestions"):
            await questions.discovery.FindMoreSuggestions(discovery_pb2.FindMoreSuggestionsRequest(**fields))

    with pytest.raises(NotFound):
        await ask(person_ids=[str(uuid4())])
    for fields, name in (
        ({"min_confidence": 1.5}, "min_confidence"),
        ({"max_per_person": -1}, "max_per_person"),
        ({"method": suggestions_pb2.SUGGESTION_METHOD_PROPAGATION}, "method"),
        ({"person_ids": ["Anna"]}, "person_ids[0]"),
        ({"person_ids": [str(uuid4())] * 501}, "person_ids"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await ask(**fields)
        assert [each.field for each in refused.value.violations] == [name]


async def test_a_library_without_people_or_photos_has_nothing_to_ask(people: People, questions: Questions) -> None:
    job = await questions.find_more()
    assert MessageToDict(job.result) == {"persons": 0, "candidates": 0, "created": 0, "kept": 0}
    anna = await people.create("Anna")
    job = await questions.find_more(anna)
    assert (job.progress.done, job.progress.skipped) == (1, 1)
