"""One face held against some people: each is judged, also those it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from uuid import UUID

import pytest

from services.suggestions.domain.judging import judge_faces
from services.suggestions.domain.matching import Circumstances, PersonMatch, Rule, judge_people
from services.suggestions.domain.model import Evidence
from services.suggestions.domain.people import KnownPeople
from services.suggestions.repository.known import KnownPerson, PhotoFace
from services.suggestions.repository.matched import MatchedFace, Refusal
from shared.faces.embeddings import Vectors
from shared.faces.eras import PartialDate
from tests.unit.suggestions.people import ANNA, BERT, CLEO, RULES, axis, candidates, know, photo_face, prototype

FACE = photo_face(9)
# 0.8 to Anna, 0.6 to Bert.
BETWEEN = axis(0, 1, 0.36)


def three_people(born: PartialDate | None = None, *, hidden: bool = False) -> KnownPeople:
    return know(
        [KnownPerson(ANNA, born, hidden), KnownPerson(BERT, None), KnownPerson(CLEO, None)],
        [prototype(ANNA, photo_face(1), axis(0)), prototype(BERT, photo_face(2), axis(1))],
    )


def match(
    people: KnownPeople,
    face: PhotoFace = FACE,
    vector: Vectors = BETWEEN,
    *,
    state: str = "ACTIVE",
    assigned: bool = False,
    may_double: bool = False,
    refusals: Mapping[UUID, set[Refusal]] | None = None,
    shown: set[tuple[str, UUID]] | None = None,
    min_confidence: float = 0.5,
) -> dict[UUID, PersonMatch]:
    matched = MatchedFace(face, None, state, assigned, may_double)
    around = Circumstances(matched, refusals or {}, shown or set())
    found = judge_people(candidates((face, vector)), people, RULES, around, min_confidence)
    assert sorted(found, key=lambda each: -each.evidence.score if each.evidence else 0.0) == found
    return {each.person_id: each for each in found}


def evidence_of(match: PersonMatch) -> Evidence:
    assert match.evidence is not None
    return match.evidence


def test_the_best_person_has_the_question_that_a_job_would_ask() -> None:
    people = three_people()
    (asked,) = judge_faces(candidates((FACE, BETWEEN)), people, RULES, set(), {ANNA, BERT})
    found = match(people)
    assert list(found) == [ANNA, BERT]
    assert (found[ANNA].confidence, found[ANNA].evidence) == (asked.confidence, asked.evidence)
    assert found[ANNA].blocked_by == ()
    assert found[BERT].blocked_by == (Rule.OTHER_PERSON,)
    assert evidence_of(found[BERT]).margin == pytest.approx(-0.2, abs=2e-3)
    assert evidence_of(found[BERT]).runner_up_person_id == ANNA


def test_who_it_cannot_be_is_judged_and_is_nobodys_rival() -> None:
    people = three_people()
    (asked,) = judge_faces(candidates((FACE, BETWEEN)), people, RULES, {(FACE.face_id, ANNA)}, {BERT})
    found = match(people, refusals={ANNA: {Refusal.REJECTED, Refusal.EXCLUDED}})
    assert found[ANNA].blocked_by == (Rule.EXCLUDED, Rule.REJECTED)
    assert (found[BERT].evidence, found[BERT].blocked_by) == (asked.evidence, ())
    assert evidence_of(found[ANNA]).runner_up_person_id == BERT


def test_nobody_is_a_rival_before_birth_however_little_alike() -> None:
    face = photo_face(9, captured=PartialDate(date(2000, 1, 1)))
    people = three_people(born=PartialDate(date(2000, 1, 2)))
    for vector in (BETWEEN, axis(1, 0, 0.05)):
        (asked,) = judge_faces(candidates((face, vector)), people, RULES, set(), {BERT})
        found = match(people, face, vector)
        assert Rule.BEFORE_BIRTH in found[ANNA].blocked_by
        assert (found[BERT].evidence, found[BERT].blocked_by) == (asked.evidence, ())
        assert asked.evidence.margin is None


@pytest.mark.parametrize(
    ("state", "assigned", "rule"),
    [("IGNORED", False, Rule.IGNORED), ("NOT_A_FACE", False, Rule.NOT_A_FACE), ("ACTIVE", True, Rule.ASSIGNED)],
)
def test_what_the_face_is_blocks_everybody(state: str, assigned: bool, rule: Rule) -> None:
    found = match(three_people(), state=state, assigned=assigned)
    assert found[ANNA].blocked_by == (rule,)
    assert found[BERT].blocked_by == (rule, Rule.OTHER_PERSON)


def test_a_hidden_person_and_one_below_the_floor() -> None:
    assert match(three_people(hidden=True))[ANNA].blocked_by == (Rule.HIDDEN_PERSON,)
    far = match(three_people(), vector=axis(4, 0, 0.04))
    assert far[ANNA].blocked_by == (Rule.BELOW_FLOOR, Rule.UNSURE)
    assert match(three_people(), min_confidence=1.0)[ANNA].blocked_by == (Rule.UNSURE,)


def test_a_person_shown_already_unless_the_photo_may_show_one_twice() -> None:
    shown = {(FACE.asset_id, ANNA)}
    found = match(three_people(), shown=shown)
    assert found[ANNA].blocked_by == (Rule.SAME_PHOTO,)
    assert evidence_of(found[ANNA]).same_photo
    assert match(three_people(), shown=shown, may_double=True)[ANNA].blocked_by == ()


def test_a_library_without_prototypes_has_no_candidates() -> None:
    assert match(know([KnownPerson(ANNA, None)], [])) == {}
