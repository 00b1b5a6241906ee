"""What a machine may answer by itself: each rule alone keeps it from doing so."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from services.suggestions.domain.assigning import divide_questions, list_handovers
from services.suggestions.domain.discovering import Looked
from services.suggestions.domain.model import Evidence, Question
from services.suggestions.repository.candidates import FoundFace
from shared.jobs.handing_over import FACES_PER_CALL
from tests.unit.suggestions.people import ANNA, BERT, RULES, photo_face

SURE = Evidence(score=0.8, margin=0.5, runner_up_person_id=BERT, support=3, exemplars=(), quality=0.8, era_score=None)


def found(number: int, *, asset_id: str | None = None) -> FoundFace:
    face = photo_face(number, asset_id=asset_id)
    return FoundFace(face, b"", frozenset(), frozenset(), may_double=False, pinned=False, dismissed=False)


def ask(face: FoundFace, confidence: float, person_id: UUID = ANNA, evidence: Evidence = SURE) -> Question:
    return Question(face.face.face_id, face.face.asset_id, person_id, confidence, evidence)


def divide(*pairs: tuple[FoundFace, Question]) -> tuple[list[UUID], list[UUID]]:
    looked = Looked([face for face, _ in pairs], [question for _, question in pairs], set())
    divided = divide_questions(looked, RULES, 0.99)
    return [each.face_id for each in divided.sure], [each.face_id for each in divided.doubtful]


def test_the_sure_are_assigned_surest_first_and_the_others_asked_about() -> None:
    faces = [found(number) for number in range(3)]
    confidences = (0.99, 0.9899, 0.999)
    pairs = [(face, ask(face, confidence)) for face, confidence in zip(faces, confidences, strict=True)]
    ids = [face.face.face_id for face in faces]
    assert divide(*pairs) == ([ids[2], ids[0]], [ids[1]])


@pytest.mark.parametrize(
    ("bound", "evidence"),
    [
        (replace(found(1), pinned=True), SURE),
        (found(1), replace(SURE, score=0.49)),
        (found(1), replace(SURE, era_score=0.85)),
        (found(1), replace(SURE, same_photo=True)),
    ],
)
def test_what_is_no_machines_business_is_asked_about(bound: FoundFace, evidence: Evidence) -> None:
    plain = found(1)
    assert divide((plain, ask(plain, 0.999))) == ([plain.face.face_id], [])
    assert divide((bound, ask(bound, 0.999, evidence=evidence))) == ([], [bound.face.face_id])


def test_of_two_faces_in_one_photo_only_the_surer_is_the_persons() -> None:
    first, second = found(1, asset_id="p"), found(2, asset_id="p")
    pairs = [(first, ask(first, 0.995)), (second, ask(second, 0.999))]
    assert divide(*pairs) == ([second.face.face_id], [first.face.face_id])
    # Two persons in a photo are no double.
    assert divide(pairs[0], (second, ask(second, 0.999, BERT)))[1] == []
    # A collage may show one person twice.
    collage = [(replace(face, may_double=True), question) for face, question in pairs]
    assert divide(*collage) == ([second.face.face_id, first.face.face_id], [])


def test_a_face_put_away_is_left_alone() -> None:
    face = replace(found(1), dismissed=True)
    assert divide((face, ask(face, 0.999))) == ([], [])


def test_each_call_is_one_persons_and_no_larger_than_it_may_be() -> None:
    faces = [found(number) for number in range(FACES_PER_CALL + 2)]
    questions = [ask(faces[0], 0.999, BERT), *(ask(face, 0.99) for face in faces[1:])]
    handovers = list_handovers(questions)
    assert [(each.person_id, len(each.confidences)) for each in handovers] == [
        (BERT, 1),
        (ANNA, FACES_PER_CALL),
        (ANNA, 1),
    ]
    assert [face_id for each in handovers for face_id in each.confidences] == [each.face_id for each in questions]
