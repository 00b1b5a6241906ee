"""MatchFace: everybody a face may be, on the evidence a job would find, and what speaks against them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import delete, select, update

from bench.embeddings import generate_faces
from kith.common.v1 import types_pb2
from kith.persons.v1 import assignments_pb2, persons_pb2, prototypes_pb2
from services.suggestions.domain.matching import match_face
from services.suggestions.wiring import build_deps
from shared.db.tables_detection import assets, face_embeddings
from shared.db.tables_persons import persons
from shared.db.tables_suggestions import suggestions
from shared.errors import InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.vectors.people import PersonIndex
from tests.integration.counting import recording_statements
from tests.integration.library import seed_faces
from tests.integration.suggestions.album import People, Person, draw_people, seed_library, wait_indexed
from tests.integration.suggestions.conftest import Questions
from tests.integration.suggestions.matching import add_mode, assert_alike, match, match_one, set_state


async def test_a_question_has_the_evidence_that_matching_its_face_has(
    base: Foundation, people: People, questions: Questions
) -> None:
    drawn = generate_faces(700, seed=3)
    faces = await seed_library(base, drawn.vectors, qualities=[float(each) for each in drawn.quality])
    names, sizes = np.unique(drawn.truth[drawn.truth >= 0], return_counts=True)
    for number in names[np.argsort(-sizes)][:12].tolist():
        rows = [int(row) for row in np.flatnonzero(drawn.truth == number)]
        # Born in different years, so that some are of the photo's era, some of another, and some not born yet.
        person = await people.create(f"Person {number}", born=types_pb2.Date(year=1960 + 5 * (number % 14)))
        best = sorted(rows, key=lambda row: -drawn.quality[row])[:5]
        await people.assign(person, [faces.face_ids[row] for row in best])
    free = faces.face_ids[::40]
    before = {face_id: await match(base, questions, face_id) for face_id in free}
    async with base.database.transaction() as tx:
        assert not await tx.rows(select(suggestions.c.suggestion_id))
    for face_id in free[:4]:
        if before[face_id]:
            person_id = UUID(before[face_id][0].person_id)
            await people.exclude(Person(person_id, ""), face_id)
    await questions.find_more(min_confidence=0.0)
    asked = await questions.list()
    assert len(asked) >= 20
    for each in asked[::3]:
        (found,) = [
            candidate
            for candidate in await match(base, questions, UUID(each.face_id))
            if candidate.person_id == each.person_id
        ]
        assert_alike(found.evidence, each.evidence)
        assert found.confidence == pytest.approx(each.confidence, abs=1e-5)
        assert list(found.blocked_by) == ([] if each.confidence >= 0.5 else ["unsure"])


async def test_candidates_come_most_alike_first_with_their_exemplars(
    base: Foundation, people: People, questions: Questions
) -> None:
    vectors = draw_people(3, 5)
    vectors[4] = 0.8 * vectors[4] + 0.7 * vectors[9]
    vectors[4] /= np.linalg.norm(vectors[4])
    faces = await seed_library(base, vectors)
    anna = await people.create("Anna", born=types_pb2.Date(year=1990))
    bert, cleo = await people.create("Bert"), await people.create("Cleo")
    for person, first in ((anna, 0), (bert, 5), (cleo, 10)):
        await people.assign(person, faces.face_ids[first : first + 3])
    found = await match(base, questions, faces.face_ids[4])
    assert [each.person_id for each in found] == [str(each.person_id) for each in (anna, bert, cleo)]
    assert found[0].blocked_by == []
    assert found[1].blocked_by == ["other person", "unsure"]
    assert "below floor" in found[2].blocked_by
    assert found[1].evidence.runner_up_person_id == str(anna.person_id)
    assert found[1].evidence.margin < 0
    cosines = vectors[:3] @ vectors[4]
    exemplars = found[0].evidence.exemplars
    assert [each.face_id for each in exemplars] == [str(faces.face_ids[row]) for row in np.argsort(-cosines)]
    assert {each.era for each in exemplars} == {types_pb2.ERA_YOUNG_ADULT}
    assert prototypes_pb2.PROTOTYPE_ROLE_PRIMARY in {each.role for each in exemplars}
    assert found[0].evidence.era_score == 1.0
    (nearest,) = await match(base, questions, faces.face_ids[4], limit=1)
    assert_alike(nearest.evidence, found[0].evidence)


async def test_an_assigned_face_is_not_held_against_itself(
    base: Foundation, people: People, questions: Questions
) -> None:
    vectors = draw_people(2, 4)
    faces = await seed_library(base, vectors, faces_per_photo=4)
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:1])
    alone = await match(base, questions, faces.face_ids[0])
    assert not alone
    await people.assign(bert, faces.face_ids[4:6])
    only = await match(base, questions, faces.face_ids[0])
    assert [each.person_id for each in only] == [str(bert.person_id)]
    await people.assign(anna, faces.face_ids[1:3])
    found = await match_one(base, questions, faces.face_ids[0], anna)
    assert found.evidence.score == pytest.approx(float((vectors[1:3] @ vectors[0]).max()), abs=2e-3)
    assert str(faces.face_ids[0]) not in {each.face_id for each in found.evidence.exemplars}
    # Of the photo's other faces two are hers.
    assert found.blocked_by == ["assigned", "same photo"]
    await people.assign(bert, [faces.face_ids[3]])
    found = await match_one(base, questions, faces.face_ids[3], bert)
    assert found.blocked_by[0] == "assigned"
    assert "same photo" not in found.blocked_by


async def test_what_humans_said_of_a_pair(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 5))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await people.exclude(anna, faces.face_ids[2])
    await questions.find_more()
    (first, _) = await questions.list()
    await questions.reject(first.id)
    assert (await match_one(base, questions, faces.face_ids[2], anna)).blocked_by == ["excluded"]
    rejected = await match_one(base, questions, UUID(first.face_id), anna)
    assert rejected.blocked_by == ["excluded", "rejected"]
    assert_alike(rejected.evidence, first.evidence)


async def test_before_birth(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 5))
    async with base.database.transaction() as tx:
        for row, (moment, precision) in {
            2: (datetime(2010, 5, 31, tzinfo=UTC), "DAY"),
            3: (datetime(2010, 1, 1, tzinfo=UTC), "YEAR"),
            4: (None, None),
        }.items():
            await tx.execute(
                update(assets)
                .where(assets.c.asset_id == faces.asset_ids[row])
                .values(captured_at=moment, captured_precision=precision)
            )
    anna = await people.create("Anna", born=types_pb2.Date(year=2010, month=6))
    await people.assign(anna, faces.face_ids[:2])
    assert (await match_one(base, questions, faces.face_ids[2], anna)).blocked_by == ["before birth"]
    for row in (3, 4):
        assert (await match_one(base, questions, faces.face_ids[row], anna)).blocked_by == []


async def test_a_second_face_of_a_person_in_a_photo_unless_it_may_show_one_twice(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 4), faces_per_photo=2)
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:3])
    found = await match_one(base, questions, faces.face_ids[3], anna)
    assert found.blocked_by == ["same photo"]
    assert found.evidence.same_photo
    await people.assignments.AllowDoubles(
        assignments_pb2.AllowDoublesRequest(asset_ids=[faces.asset_ids[3]], allowed=True)
    )
    assert (await match_one(base, questions, faces.face_ids[3], anna)).blocked_by == []


async def test_faces_put_away_and_people_hidden(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 4))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    for state, rule in (("IGNORED", "ignored"), ("NOT_A_FACE", "not a face")):
        await set_state(base, faces.face_ids[2], state)
        assert (await match_one(base, questions, faces.face_ids[2], anna)).blocked_by == [rule]
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).where(persons.c.person_id == anna.person_id).values(status="HIDDEN"))
    assert (await match_one(base, questions, faces.face_ids[3], anna)).blocked_by == ["hidden person"]


async def test_who_the_face_cannot_be_never_hides_a_rival(
    base: Foundation, people: People, questions: Questions
) -> None:
    """Twenty people are nearer than the one that may be, and only one candidate is asked for."""
    vectors = draw_people(1, 47, likeness=0.9, seed=4)
    vectors[1:3] = draw_people(1, 2, seed=9) * 0.7 + vectors[0] * 0.3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    faces = await seed_library(base, vectors)
    near = faces.face_ids[0]
    may_be = await people.create("May be")
    await people.assign(may_be, faces.face_ids[1:3])
    unborn = [await people.create(f"Unborn {row}", born=types_pb2.Date(year=2021)) for row in range(8)]
    gone = [await people.create(f"Gone {row}") for row in range(8)]
    refused = [await people.create(f"Refused {row}") for row in range(6)]
    for at, person in enumerate([*unborn, *gone, *refused]):
        await people.assign(person, faces.face_ids[3 + 2 * at : 5 + 2 * at])
    for person in refused:
        await people.exclude(person, near)
    for person in gone:
        etag = (
            await people.persons.GetPerson(persons_pb2.GetPersonRequest(person_id=str(person.person_id)))
        ).person.etag
        await people.persons.DeletePerson(persons_pb2.DeletePersonRequest(person_id=str(person.person_id), etag=etag))
    (first,) = await match(base, questions, near, limit=1)
    assert first.blocked_by[0] in {"before birth", "excluded"}
    assert first.evidence.runner_up_person_id == str(may_be.person_id)
    found = await match(base, questions, near, limit=50)
    assert {each.person_id for each in found} == {str(each.person_id) for each in [may_be, *unborn, *refused]}
    (free,) = [each for each in found if each.person_id == str(may_be.person_id)]
    assert "other person" not in free.blocked_by
    assert not free.evidence.HasField("margin")


async def test_a_mode_centroid_makes_a_candidate(base: Foundation, people: People, questions: Questions) -> None:
    vectors = draw_people(6, 3)
    faces = await seed_library(base, vectors)
    known = [await people.create(f"Person {number}") for number in range(6)]
    for number, person in enumerate(known[:5]):
        await people.assign(person, faces.face_ids[3 * number : 3 * number + 2])
    # Nothing but a mode is like the face, and it has no prototypes.
    await add_mode(base, known[5], vectors[16])
    (found,) = await match(base, questions, faces.face_ids[15], limit=1)
    assert found.person_id == str(known[5].person_id)
    assert found.evidence.score == pytest.approx(float(vectors[15] @ vectors[16]), abs=2e-3)
    assert (found.evidence.support, list(found.evidence.exemplars)) == (0, [])


async def test_libraries_are_apart(base: Foundation, people: People, questions: Questions) -> None:
    vectors = draw_people(1, 4)
    faces = await seed_library(base, vectors)
    others = await seed_faces(base, vectors, library_id="other")
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    assert [each.person_id for each in await match(base, questions, faces.face_ids[2])] == [str(anna.person_id)]
    assert await match(base, questions, others.face_ids[2], library_id="other") == []
    request = persons_pb2.CreatePersonRequest(library_id="other", person=persons_pb2.Person(name="Anna"))
    theirs = (await people.persons.CreatePerson(request)).person.id
    await people.assignments.BatchAssignFaces(
        assignments_pb2.BatchAssignFacesRequest(
            library_id="other", face_ids=[str(each) for each in others.face_ids[:2]], person_id=theirs
        )
    )
    found = await match(base, questions, others.face_ids[2], library_id="other")
    assert [each.person_id for each in found] == [theirs]
    assert [each.person_id for each in await match(base, questions, faces.face_ids[2])] == [str(anna.person_id)]
    with pytest.raises(NotFound):
        await match(base, questions, others.face_ids[2])


async def test_what_cannot_be_matched(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 2))
    with pytest.raises(NotFound):
        await match(base, questions, uuid4())
    for fields in ({"limit": -1}, {"limit": 51}):
        with pytest.raises(InvalidRequest):
            await match(base, questions, faces.face_ids[0], **fields)
    assert await match(base, questions, faces.face_ids[0]) == []
    async with base.database.transaction() as tx:
        await tx.execute(delete(face_embeddings).where(face_embeddings.c.face_id == faces.face_ids[0]))
    with pytest.raises(PreconditionFailed) as refused:
        await match(base, questions, faces.face_ids[0])
    assert refused.value.reason is Reason.MODEL_MISMATCH
    assert refused.value.metadata["actual"] == ""


async def test_the_cost_does_not_grow_with_the_people(
    base: Foundation, people: People, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = await seed_library(base, draw_people(24, 4))
    search, calls = base.qdrant.query_batch_points, 0

    async def count_call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return await search(*args, **kwargs)

    monkeypatch.setattr(base.qdrant, "query_batch_points", count_call)
    index = PersonIndex(base.qdrant, base.collections, base.settings.persons.max_prototypes)
    for first, known in ((0, 2), (2, 24)):
        for number in range(first, known):
            person = await people.create(f"Person {number}")
            await people.assign(person, faces.face_ids[4 * number : 4 * number + 2])
        await wait_indexed(base)
        calls = 0
        with recording_statements(base.database) as sent:
            found = await match_face(base.database, build_deps(base), index, "default", faces.face_ids[2], 50)
        assert len(found) == known
        assert (len([each for each in sent if "SELECT" in each.text.upper()]), calls) == (6, 2)
