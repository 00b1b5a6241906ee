"""Which face is asked about, to whom, and on what evidence."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import pytest

from services.suggestions.domain.judging import judge_faces, pick_questions
from services.suggestions.domain.model import Evidence, Question
from services.suggestions.domain.people import KnownPeople
from services.suggestions.repository.known import KnownCentroid, KnownPerson
from shared.config import SuggestionSettings
from shared.faces.embeddings import encode_embedding
from shared.faces.eras import PartialDate
from tests.unit.suggestions.people import ANNA, BERT, CLEO, RULES, axis, candidates, know, photo_face, prototype

SETTINGS = SuggestionSettings()


def two_people() -> KnownPeople:
    return know(
        [KnownPerson(ANNA, None), KnownPerson(BERT, None)],
        [
            prototype(ANNA, photo_face(1), axis(0)),
            prototype(ANNA, photo_face(2), axis(0, 2, 0.36)),
            prototype(BERT, photo_face(3), axis(1)),
        ],
    )


def question(number: int, person_id: UUID, confidence: float) -> Question:
    face = photo_face(number)
    return Question(face.face_id, face.asset_id, person_id, confidence, Evidence(0.5, None, None, 1, (), 0.8, None))


def test_a_face_goes_to_its_best_person_with_margin_support_and_exemplars() -> None:
    people = two_people()
    found = judge_faces(candidates((photo_face(9), axis(0, 1, 0.36))), people, RULES, set(), {ANNA, BERT})
    (asked,) = found
    assert (asked.face_id, asked.person_id) == (photo_face(9).face_id, ANNA)
    assert asked.evidence.score == pytest.approx(0.8, abs=1e-3)
    assert asked.evidence.margin == pytest.approx(0.2, abs=2e-3)
    assert asked.evidence.runner_up_person_id == BERT
    assert asked.evidence.support == 2
    assert [each.face_id for each in asked.evidence.exemplars] == [photo_face(1).face_id, photo_face(2).face_id]
    assert asked.confidence == pytest.approx(RULES.calibration.confidence(0.8, 0.2, 2), abs=1e-2)


def test_a_face_whose_best_person_is_not_asked_for_is_dropped() -> None:
    people = two_people()
    assert not judge_faces(candidates((photo_face(9), axis(0, 1, 0.36))), people, RULES, set(), {BERT})


def test_a_face_below_the_floor_is_nobody() -> None:
    people = two_people()
    assert not judge_faces(candidates((photo_face(9), axis(5, 0, 0.08))), people, RULES, set(), {ANNA, BERT})


def test_a_refused_pair_leaves_the_face_to_the_next_best_without_a_rival() -> None:
    people = two_people()
    face = photo_face(9)
    pair = (face.face_id, ANNA)
    (asked,) = judge_faces(candidates((face, axis(0, 1, 0.36))), people, RULES, {pair}, {ANNA, BERT})
    assert asked.person_id == BERT
    assert (asked.evidence.margin, asked.evidence.runner_up_person_id) == (None, None)


def test_a_person_is_no_candidate_and_no_rival_before_birth() -> None:
    born = PartialDate(date(2015, 1, 1))
    people = know(
        [KnownPerson(ANNA, born), KnownPerson(BERT, None)],
        [prototype(ANNA, photo_face(1), axis(0)), prototype(BERT, photo_face(3), axis(1))],
    )
    before, after = PartialDate(date(2014, 12, 31)), PartialDate(date(2015, 1, 2))
    found = judge_faces(
        candidates(
            (photo_face(8, captured=before), axis(0, 1, 0.36)), (photo_face(9, captured=after), axis(0, 1, 0.36))
        ),
        people,
        RULES,
        set(),
        {ANNA, BERT},
    )
    assert [(each.person_id, each.evidence.runner_up_person_id) for each in found] == [(BERT, None), (ANNA, BERT)]


def test_the_era_score_compares_the_face_with_its_best_exemplar() -> None:
    born = PartialDate(date(2000, 1, 1))
    shown = photo_face(1, captured=PartialDate(date(2002, 1, 1)))
    people = know([KnownPerson(ANNA, born)], [prototype(ANNA, shown, axis(0), born)])
    faces = [photo_face(8 + n, captured=PartialDate(date(year, 1, 2))) for n, year in enumerate((2003, 2008, 2030))]
    found = judge_faces(candidates(*((face, axis(0, 3, 0.2)) for face in faces)), people, RULES, set(), {ANNA})
    assert [each.evidence.era_score for each in found] == pytest.approx([1.0, 0.9, 0.6])
    (unknown,) = judge_faces(candidates((photo_face(9), axis(0))), people, RULES, set(), {ANNA})
    assert unknown.evidence.era_score is None


def test_a_mode_centroid_speaks_for_the_person_but_is_no_exemplar() -> None:
    people = know(
        [KnownPerson(ANNA, None)],
        [prototype(ANNA, photo_face(1), axis(0))],
        [KnownCentroid(ANNA, encode_embedding(axis(4))), KnownCentroid(CLEO, encode_embedding(axis(5)))],
    )
    (asked,) = judge_faces(candidates((photo_face(9), axis(4)), (photo_face(8), axis(5))), people, RULES, set(), {ANNA})
    assert asked.evidence.score == pytest.approx(1.0, abs=1e-3)
    assert (asked.evidence.support, asked.evidence.exemplars) == (0, ())


def test_of_near_duplicates_the_open_one_stays_else_the_surest_is_picked() -> None:
    twins = [photo_face(8, second=1, difference_hash=0), photo_face(9, second=5, difference_hash=0b11)]
    asked = [question(8, ANNA, 0.7), question(9, ANNA, 0.9), question(9, BERT, 0.6)]
    chosen = pick_questions(asked, twins, set(), SETTINGS, min_confidence=0.5, max_per_person=10)
    assert [(each.face_id, each.person_id) for each in chosen] == [(twins[1].face_id, ANNA), (twins[1].face_id, BERT)]
    still_open = {(twins[0].face_id, ANNA)}
    chosen = pick_questions(asked, twins, still_open, SETTINGS, min_confidence=0.5, max_per_person=10)
    assert (twins[0].face_id, ANNA) in {(each.face_id, each.person_id) for each in chosen}
    assert len(chosen) == 2


def test_open_questions_that_were_not_found_again_take_up_room() -> None:
    faces = [photo_face(number) for number in range(6)]
    asked = [question(number, ANNA, 0.9 - number / 20) for number in range(5)]
    open_pairs = {(faces[0].face_id, ANNA), (photo_face(50).face_id, ANNA)}
    chosen = pick_questions(asked, faces, open_pairs, SETTINGS, min_confidence=0.5, max_per_person=3)
    assert [each.face_id for each in chosen] == [faces[0].face_id, faces[1].face_id]


def test_what_is_not_sure_enough_is_not_asked() -> None:
    faces = [photo_face(1), photo_face(2)]
    asked = [question(1, ANNA, 0.49), question(2, ANNA, 0.5)]
    chosen = pick_questions(asked, faces, set(), SETTINGS, min_confidence=0.5, max_per_person=3)
    assert [each.face_id for each in chosen] == [faces[1].face_id]
