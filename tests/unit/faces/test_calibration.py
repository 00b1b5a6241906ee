"""Scores as probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.faces.calibration import Calibration

CURVE = Calibration(slope=25.0, intercept=-9.0)
scores = st.floats(-1, 1)
margins = st.floats(-1, 1)
supports = st.integers(0, 50)


def test_plain_score_is_the_packs_logistic() -> None:
    assert CURVE.confidence(0.5) == pytest.approx(1 / (1 + np.exp(9.0 - 12.5)))
    assert CURVE.confidence(CURVE.midpoint) == pytest.approx(0.5)


@given(scores, scores, margins, margins, supports, supports)
def test_more_of_anything_is_never_less(s1: float, s2: float, m1: float, m2: float, n1: int, n2: int) -> None:
    low = CURVE.confidence(min(s1, s2), min(m1, m2), min(n1, n2))
    high = CURVE.confidence(max(s1, s2), max(m1, m2), max(n1, n2))
    assert 0.0 <= low <= high <= 1.0


@given(st.floats(0.001, 0.999), margins, supports)
def test_the_inverse_gives_the_score_of_a_target(target: float, margin: float, support: int) -> None:
    score = CURVE.score_for(target, margin, support)
    assert CURVE.confidence(score, margin, support) == pytest.approx(target, abs=1e-9)


def test_margin_and_support_move_as_documented() -> None:
    def odds(probability: float) -> float:
        return float(np.log(probability / (1 - probability)))

    plain = odds(CURVE.confidence(0.4))
    assert odds(CURVE.confidence(0.4, margin=CURVE.neutral_margin)) == pytest.approx(plain)
    assert odds(CURVE.confidence(0.4, margin=0.2)) == pytest.approx(plain + 0.8)
    assert odds(CURVE.confidence(0.4, margin=5.0)) == pytest.approx(plain + 1.6)
    assert odds(CURVE.confidence(0.4, support=4)) == pytest.approx(plain + 0.8)
    assert odds(CURVE.confidence(0.4, support=1000)) == pytest.approx(plain + 1.2)


def test_arrays_equal_single_values() -> None:
    score, margin, support = np.array([0.1, 0.4, 0.9]), np.array([-0.3, 0.1, 0.2]), np.array([0, 1, 9])
    expected = [CURVE.confidence(*row) for row in zip(score, margin, support, strict=True)]
    np.testing.assert_allclose(CURVE.confidences(score, margin, support), expected)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 1.5])
def test_an_impossible_target_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        CURVE.score_for(target)


@pytest.mark.parametrize(
    ("slope", "intercept", "margin_weight"),
    [
        (0.0, -8.0, 8.0),
        (-1.0, -8.0, 8.0),
        (float("nan"), -8.0, 8.0),
        (20.0, float("inf"), 8.0),
        (20.0, -8.0, -1.0),
    ],
)
def test_a_curve_that_is_not_monotone_is_refused(slope: float, intercept: float, margin_weight: float) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(slope=slope, intercept=intercept, margin_weight=margin_weight)
