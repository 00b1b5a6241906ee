"""Whose face is it."""

from __future__ import annotations

import numpy as np
import pytest

from shared.faces.embeddings import normalise
from shared.faces.matching import (
    Match,
    References,
    explain_match,
    measure_margins,
    score_persons,
    stack_references,
)


def at_angle(degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.array([np.cos(radians), np.sin(radians)], dtype=np.float32)


def explain(vector: np.ndarray, references: References, person: int, floor: float) -> Match:
    table = score_persons(vector[None], references, floor)
    return explain_match(vector[None], references, table, 0, person, floor)


@pytest.fixture
def references() -> References:
    """Person 0: prototypes at 0 and 20 degrees and a centroid at 10; person 1: one at 60; person 2: nothing."""
    nobody = np.empty((0, 2), dtype=np.float32)
    return stack_references(
        [
            (np.stack([at_angle(0), at_angle(20)]), at_angle(10)[None]),
            (at_angle(60)[None], nobody),
            (nobody, nobody),
        ],
        2,
    )


def test_score_margin_support_and_evidence(references: References) -> None:
    match = explain(at_angle(15), references, 0, floor=0.95)
    assert (match.person, match.support, match.runner_up) == (0, 2, 1)
    assert match.score == pytest.approx(np.cos(np.deg2rad(5)), abs=1e-6)
    assert match.margin == pytest.approx(np.cos(np.deg2rad(5)) - np.cos(np.deg2rad(45)), abs=1e-6)
    assert [e.reference for e in match.exemplars] == [1, 0]
    assert match.exemplars[0].score == pytest.approx(match.score)


def test_a_centroid_scores_but_is_no_support_and_no_exemplar(references: References) -> None:
    match = explain(at_angle(10), references, 0, floor=0.99)
    assert match.score == pytest.approx(1.0)
    assert match.support == 0
    assert match.exemplars == ()


def test_below_the_floor_there_are_no_exemplars(references: References) -> None:
    match = explain(at_angle(200), references, 0, floor=0.5)
    assert (match.support, match.exemplars) == (0, ())
    assert match.score < 0.5


def test_the_margin_is_negative_where_somebody_else_is_more_alike(references: References) -> None:
    assert explain(at_angle(2), references, 0, floor=0.8).margin > 0
    assert explain(at_angle(48), references, 0, floor=0.8).margin < 0


def test_without_another_person_the_margin_is_the_score() -> None:
    alone = stack_references([(at_angle(0)[None], np.empty((0, 2), dtype=np.float32))], 2)
    match = explain(at_angle(60), alone, 0, floor=0.3)
    assert match.runner_up is None
    assert match.margin == pytest.approx(match.score)


def test_blocks_equal_brute_force() -> None:
    random = np.random.default_rng(0)
    candidates = normalise(random.standard_normal((70, 8)))
    owners = random.integers(0, 6, 40)
    references = References(normalise(random.standard_normal((40, 8))), owners, random.random(40) < 0.7, persons=7)
    table = score_persons(candidates, references, floor=0.4)
    cosines = candidates @ references.vectors.T
    for person in range(7):
        own = owners == person
        best = cosines[:, own].max(axis=1) if own.any() else np.full(70, -1.0)
        np.testing.assert_allclose(table.scores[:, person], best, atol=1e-6)
        np.testing.assert_array_equal(
            table.support[:, person], (cosines[:, own & references.exemplars] >= 0.4).sum(axis=1)
        )
    margins = measure_margins(table)
    for row, person in np.ndindex(table.scores.shape):
        match = explain_match(candidates, references, table, row, person, floor=-1.0)
        assert margins[row, person] == pytest.approx(match.margin, abs=1e-6)


def test_references_that_do_not_fit_are_refused() -> None:
    vectors = np.stack([at_angle(0), at_angle(1)])
    with pytest.raises(ValueError, match="one owner"):
        References(vectors, np.array([0]), np.array([True]), 1)
    with pytest.raises(ValueError, match="owner"):
        References(vectors, np.array([0, 3]), np.array([True, True]), 2)
