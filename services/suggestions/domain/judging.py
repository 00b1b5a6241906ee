"""From faces that a search found to questions worth asking.

Pure computation. Each face is held against everybody in the library and goes to the one person it is most like, among those
it still may be: a pair that was excluded or rejected, or a photo certainly older than the person, is as if the person were
not there, so that the next best may be asked about. Faces whose best person is none of those asked for are dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from uuid import UUID

import numpy as np

from services.suggestions.domain.model import Evidence, ExemplarMatch, Question
from services.suggestions.domain.people import KnownPeople, MatchRules, key_near_duplicates
from services.suggestions.repository.known import KnownPrototype, PhotoFace
from shared.config import SuggestionSettings
from shared.faces.embeddings import Vectors
from shared.faces.eras import find_era, score_eras
from shared.faces.matching import Match, PersonScores, explain_match, score_persons
from shared.faces.near_duplicates import FaceKey

SHOWN_EXEMPLARS = 5
# Pairs of a face and a person held against each other at once.
BLOCK_PAIRS = 4_000_000
# After every day a person may be born on: of a photo that nobody knows the day of.
FAR_DAY = date.max.toordinal()
Pair = tuple[UUID, UUID]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Unassigned faces and their unit vectors (N, D), in the same order."""

    faces: Sequence[PhotoFace]
    vectors: Vectors


def judge_faces(
    candidates: Candidates,
    people: KnownPeople,
    rules: MatchRules,
    refused: Collection[Pair],
    asked: Collection[UUID],
) -> list[Question]:
    """The question about each candidate whose best person is one of ``asked``, reaching the floor.

    ``refused``: (face, person) pairs never to be asked about. Memory: two blocks of :data:`BLOCK_PAIRS` numbers, 32 MB.
    """
    if not people.persons:
        return []
    wanted = np.array([person.person_id in asked for person in people.persons])
    step = max(1, BLOCK_PAIRS // len(people.persons))
    questions: list[Question] = []
    for start in range(0, len(candidates.faces), step):
        rows = slice(start, start + step)
        block = Candidates(candidates.faces[rows], candidates.vectors[rows])
        table = score_persons(block.vectors, people.references, rules.floor)
        strike_out(table, block, people, refused)
        best = np.argmax(table.scores, axis=1)
        reach = table.scores[np.arange(len(best)), best] >= rules.floor
        questions += [
            make_question(block, people, rules, table, int(row), int(best[row]))
            for row in np.flatnonzero(reach & wanted[best])
        ]
    return questions


def judge_pairs(
    candidates: Candidates, people: KnownPeople, rules: MatchRules, confidences: Mapping[Pair, float]
) -> list[Question]:
    """The question about each (face, person) pair given, as sure as it is said to be, whoever else the face may be.

    Left out: faces that are no candidates, and persons of whom there is nothing to hold against a face.
    """
    if not candidates.faces or not people.persons:
        return []
    table = score_persons(candidates.vectors, people.references, rules.floor)
    rows = {face.face_id: row for row, face in enumerate(candidates.faces)}
    recognised = {people.persons[owner].person_id for owner in set(people.references.owners.tolist())}
    return [
        replace(
            make_question(candidates, people, rules, table, rows[face_id], people.numbers[person_id]),
            confidence=confidence,
        )
        for (face_id, person_id), confidence in confidences.items()
        if face_id in rows and person_id in recognised
    ]


def pick_questions(
    questions: Sequence[Question],
    faces: Sequence[PhotoFace],
    open_pairs: Collection[Pair],
    settings: SuggestionSettings,
    *,
    min_confidence: float,
    max_per_person: int,
) -> list[Question]:
    """The surest questions of each person: one of near-duplicate faces, at most so many open at once.

    Of near-duplicates the one already being asked about stays, else the surest is taken. ``faces``: at least those of the
    questions.
    """
    keys = key_near_duplicates(faces, settings)
    sure = [question for question in questions if question.confidence >= min_confidence]
    sure.sort(key=lambda each: ((each.face_id, each.person_id) not in open_pairs, -each.confidence, each.face_id))
    taken: dict[tuple[UUID, FaceKey], Question] = {}
    for question in sure:
        taken.setdefault((question.person_id, keys[question.face_id]), question)
    room = _count_room(taken.values(), open_pairs, max_per_person)
    picked: list[Question] = []
    for question in sorted(taken.values(), key=lambda each: (-each.confidence, each.face_id)):
        left = room.get(question.person_id, max_per_person)
        if left > 0:
            picked.append(question)
            room[question.person_id] = left - 1
    return picked


def strike_out(table: PersonScores, candidates: Candidates, people: KnownPeople, refused: Collection[Pair]) -> None:
    """Give -1 to every pair of ``table`` that may not be: refused, or the photo certainly older than the person."""
    rows = {face.face_id: row for row, face in enumerate(candidates.faces)}
    for face_id, person_id in refused:
        if face_id in rows and person_id in people.numbers:
            table.scores[rows[face_id], people.numbers[person_id]] = -1.0
    born = [person.birth_date for person in people.persons]
    birthdays = np.array([each.earliest.toordinal() if each else 0 for each in born])
    taken = [face.captured for face in candidates.faces]
    days = np.array([each.latest.toordinal() if each else FAR_DAY for each in taken])
    table.scores[days[:, None] < birthdays] = -1.0


def make_question(
    candidates: Candidates,
    people: KnownPeople,
    rules: MatchRules,
    table: PersonScores,
    row: int,
    number: int,
) -> Question:
    """The question about one pair of ``table``, whatever speaks against it: candidate ``row`` and person ``number``."""
    match = explain_match(
        candidates.vectors, people.references, table, row, number, rules.floor, exemplars_shown=SHOWN_EXEMPLARS
    )
    margin = None if match.runner_up is None else match.margin
    face, person = candidates.faces[row], people.persons[number]
    return Question(
        face_id=face.face_id,
        asset_id=face.asset_id,
        person_id=person.person_id,
        confidence=rules.calibration.confidence(match.score, margin, match.support),
        evidence=Evidence(
            score=match.score,
            margin=margin,
            runner_up_person_id=None if match.runner_up is None else people.persons[match.runner_up].person_id,
            support=match.support,
            exemplars=tuple(_show_exemplar(people.prototypes[each.reference], each.score) for each in match.exemplars),
            quality=face.quality,
            era_score=_score_era(match, people, face),
            model_version=rules.model_version,
        ),
    )


def _show_exemplar(prototype: KnownPrototype, cosine: float) -> ExemplarMatch:
    return ExemplarMatch(prototype.face.face_id, cosine, prototype.era, prototype.role)


def _score_era(match: Match, people: KnownPeople, face: PhotoFace) -> float | None:
    era = find_era(people.persons[match.person].birth_date, face.captured)
    shown = people.prototypes[match.exemplars[0].reference].era if match.exemplars else None
    return None if era is None or shown is None else score_eras(era, shown)


def _count_room(questions: Collection[Question], open_pairs: Collection[Pair], limit: int) -> dict[UUID, int]:
    """How many of these questions each person may have: the limit less the open ones that are not among them."""
    among = {(question.face_id, question.person_id) for question in questions}
    room: dict[UUID, int] = {}
    for face_id, person_id in open_pairs:
        if (face_id, person_id) not in among:
            room[person_id] = room.get(person_id, limit) - 1
    return room
