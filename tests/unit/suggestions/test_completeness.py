"""The estimate of how many faces are missing, and what its interval is made of."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest

from bench.embeddings import generate_faces
from services.suggestions.domain.completeness import UNLIKE_SHARE, Floats, estimate_missing
from services.suggestions.domain.judging import Candidates, judge_faces
from services.suggestions.domain.model import Question
from services.suggestions.domain.people import KnownPeople, MatchRules
from services.suggestions.repository.known import KnownPerson
from shared.faces.calibration import ARCFACE_CALIBRATION
from shared.faces.matching import ARCFACE_FLOOR
from tests.unit.suggestions.people import photo_face, prototype


def draw_candidates(count: int, seed: int) -> tuple[Floats, Floats]:
    """Confidences and cosines of candidates, the more alike the surer."""
    scores = np.random.default_rng(seed).uniform(0.3, 0.7, count)
    return 1 / (1 + np.exp(-20 * (scores - 0.4))), scores


def draw_truth(chances: Floats, random: np.random.Generator) -> int:
    """How many are missing: those of the candidates that are the person's, and the share that is like nothing known."""
    among = (random.random(len(chances)) < chances).sum()
    return int(among + random.poisson(among * UNLIKE_SHARE / (1 - UNLIKE_SHARE)))


def test_it_is_the_sum_of_the_confidences_and_what_no_search_finds() -> None:
    confidences, scores = draw_candidates(50, 1)
    found = estimate_missing(confidences, scores, floor=0.3, reach=0.3, information=0.0)
    assert found.missing * (1 - UNLIKE_SHARE) == pytest.approx(confidences.sum())
    assert not found.extrapolated


def test_nine_of_ten_intervals_hold_the_truth_if_the_calibration_is_right() -> None:
    random = np.random.default_rng(7)
    held = 0
    for seed in range(400):
        confidences, scores = draw_candidates(40, seed)
        truth = draw_truth(confidences, random)
        found = estimate_missing(confidences, scores, floor=0.3, reach=0.3, information=1e9)
        held += found.low <= truth <= found.high
    assert 0.86 <= held / 400 <= 0.95


def test_nine_of_ten_intervals_hold_the_truth_if_the_level_is_off_as_said() -> None:
    random = np.random.default_rng(8)
    held = 0
    for seed in range(400):
        confidences, scores = draw_candidates(40, seed)
        odds = confidences / (1 - confidences) * np.exp(random.normal(0.0, 1.0))
        truth = draw_truth(odds / (1 + odds), random)
        found = estimate_missing(confidences, scores, floor=0.3, reach=0.3, information=0.0)
        held += found.low <= truth <= found.high
    assert 0.86 <= held / 400 <= 0.96


def test_answers_narrow_it_and_nothing_found_is_nothing_missing() -> None:
    confidences, scores = draw_candidates(50, 2)
    widths = [
        found.high - found.low
        for found in (
            estimate_missing(confidences, scores, floor=0.3, reach=0.3, information=told)
            for told in (0.0, 10.0, 1000.0)
        )
    ]
    assert widths == sorted(widths, reverse=True)
    nothing = estimate_missing(np.empty(0), np.empty(0), floor=0.3, reach=0.3, information=0.0)
    assert (nothing.missing, nothing.low, nothing.high) == (0.0, 0.0, 0.0)


def test_what_no_search_reached_is_carried_on_and_widens_it() -> None:
    confidences, scores = draw_candidates(400, 3)
    whole = estimate_missing(confidences, scores, floor=0.3, reach=0.3, information=1e9)
    above = scores >= 0.5
    part = estimate_missing(confidences[above], scores[above], floor=0.3, reach=0.5, information=1e9)
    assert part.extrapolated
    assert part.missing > confidences[above].sum()
    assert part.low <= whole.missing <= part.high
    assert part.high - part.low > whole.high - whole.low


def test_four_of_five_generated_persons_are_within_a_fifth() -> None:
    drawn = generate_faces(5000, seed=5)
    numbers, sizes = np.unique(drawn.truth[drawn.truth >= 0], return_counts=True)
    rows_of = {UUID(int=1 + int(number)): np.flatnonzero(drawn.truth == number) for number in numbers[sizes >= 15]}
    known = {person_id: rows[np.argsort(-drawn.quality[rows])][:5] for person_id, rows in rows_of.items()}
    people = KnownPeople(
        [KnownPerson(person_id, None) for person_id in rows_of],
        [
            prototype(person_id, photo_face(int(row)), drawn.vectors[row])
            for person_id, rows in known.items()
            for row in rows
        ],
        [],
        drawn.vectors.shape[1],
    )
    free = np.setdiff1d(np.arange(len(drawn.truth)), np.concatenate(list(known.values())))
    candidates = Candidates([photo_face(int(row)) for row in free], drawn.vectors[free])
    rules = MatchRules(ARCFACE_FLOOR, -1.0, ARCFACE_CALIBRATION, "m")
    found: dict[UUID, list[Question]] = {person_id: [] for person_id in known}
    for question in judge_faces(candidates, people, rules, set(), set(known)):
        found[question.person_id].append(question)
    near = 0
    for person_id, questions in found.items():
        confidences = np.array([question.confidence for question in questions])
        scores = np.array([question.evidence.score for question in questions])
        estimate = estimate_missing(confidences, scores, floor=ARCFACE_FLOOR, reach=ARCFACE_FLOOR, information=0.0)
        missing = len(rows_of[person_id]) - 5
        near += abs(estimate.missing - missing) <= 0.2 * missing
    assert len(found) >= 20
    assert near / len(found) >= 0.8
