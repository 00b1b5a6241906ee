"""A curve learnt from answers: never over-trusted, always monotone, and right about what it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.faces.calibration import ARCFACE_CALIBRATION, Calibration, read_calibration
from shared.faces.calibration_fit import (
    LEVEL_SD,
    MARGIN_SD,
    SLOPE_SD,
    SUPPORT_SD,
    Answers,
    cross_validate,
    fit_calibration,
    measure_reliability,
    predict,
    price_precisions,
)
from tests.unit.faces.answering import answer_questions

PACK = Calibration(slope=20.0, intercept=-8.0)
AWRY = Calibration(slope=12.0, intercept=-6.5, margin_weight=3.0, support_weight=0.1)


def draw_answers(truth: Calibration, count: int, seed: int = 0) -> Answers:
    """Questions of all kinds, answered yes with the probability a curve says."""
    random = np.random.default_rng(seed)
    asked = Answers(
        scores=random.uniform(0.2, 0.8, count),
        margins=np.where(random.random(count) < 0.1, np.nan, random.uniform(-0.1, 0.4, count)),
        supports=random.integers(0, 9, count),
        accepted=np.zeros(count, dtype=np.bool_),
    )
    accepted = random.random(count) < predict(truth, asked)
    return Answers(asked.scores, asked.margins, asked.supports, accepted)


def repeat_answer(count: int, *, score: float, accepted: bool) -> Answers:
    """The same answer again and again."""
    return Answers(
        np.full(count, score), np.full(count, np.nan), np.ones(count, dtype=np.int64), np.full(count, accepted)
    )


def test_without_answers_it_is_the_packs_curve() -> None:
    assert fit_calibration(PACK, draw_answers(AWRY, 0)) == PACK


def test_enough_answers_find_the_curve_they_came_from() -> None:
    fitted = fit_calibration(PACK, draw_answers(AWRY, 20_000))
    assert fitted.midpoint == pytest.approx(AWRY.midpoint, abs=0.02)
    assert fitted.slope == pytest.approx(AWRY.slope, rel=0.05)
    assert fitted.margin_weight == pytest.approx(AWRY.margin_weight, abs=0.5)
    assert fitted.support_weight == pytest.approx(AWRY.support_weight, abs=0.05)
    assert (fitted.neutral_margin, fitted.margin_span, fitted.support_cap) == (0.1, 0.2, 8)


def test_ten_answers_move_it_only_a_little() -> None:
    noes = fit_calibration(PACK, repeat_answer(10, score=PACK.midpoint, accepted=False))
    assert 0.05 < noes.confidence(PACK.midpoint) < 0.3
    assert noes.confidence(0.7) > 0.9
    many = fit_calibration(PACK, repeat_answer(1000, score=PACK.midpoint, accepted=False))
    assert many.confidence(PACK.midpoint) < 0.01


def test_ten_answers_do_little_harm_where_the_pack_is_right() -> None:
    """Without the prior ten answers change a confidence by 0.14 on average, and by up to 0.26."""
    fresh = draw_answers(PACK, 5000, 100)
    wanted = predict(PACK, fresh)
    fits = [fit_calibration(PACK, draw_answers(PACK, 10, seed)) for seed in range(40)]
    harm = [np.abs(predict(fitted, fresh) - wanted).mean() for fitted in fits]
    assert np.mean(harm) < 0.06
    assert np.max(harm) < 0.12


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-1, 1),
            st.one_of(st.just(float("nan")), st.floats(-2, 2)),
            st.integers(0, 50),
            st.booleans(),
        ),
        min_size=1,
        max_size=200,
    ),
    st.integers(1, 100),
)
def test_whatever_is_answered_the_curve_stays_monotone(rows: list[tuple[float, float, int, bool]], times: int) -> None:
    scores, margins, supports, accepted = (np.array(column) for column in zip(*(rows * times), strict=True))
    fitted = fit_calibration(PACK, Answers(scores, margins, supports.astype(np.int64), accepted))
    # The class itself refuses what is not monotone; a fit must not run against its bounds and fail.
    assert fitted.slope >= 0.1 * PACK.slope
    assert min(fitted.margin_weight, fitted.support_weight) >= 0.0


def test_answers_that_contradict_the_evidence_end_at_the_bounds() -> None:
    upside_down = Calibration(slope=15.0, intercept=-7.0)
    answers = draw_answers(upside_down, 5000)
    fitted = fit_calibration(PACK, Answers(answers.scores, answers.margins, answers.supports, ~answers.accepted))
    assert fitted.slope == pytest.approx(0.1 * PACK.slope)
    assert (fitted.margin_weight, fitted.support_weight) == (0.0, 0.0)


def test_the_fit_is_the_most_likely_curve() -> None:
    """Against a search that knows nothing of gradients: no nearby curve is more likely."""
    answers = draw_answers(AWRY, 300)
    fitted = fit_calibration(PACK, answers)

    def cost(level: float, slope: float, margin_weight: float, support_weight: float) -> float:
        curve = Calibration(slope, level - slope * PACK.midpoint, margin_weight, support_weight=support_weight)
        chances = predict(curve, answers)
        likelihood = -np.log(np.where(answers.accepted, chances, 1 - chances)).sum()
        z = (
            level / LEVEL_SD,
            (slope - 20) / (20 * SLOPE_SD),
            (margin_weight - 8) / MARGIN_SD,
            (support_weight - 0.4) / SUPPORT_SD,
        )
        return float(likelihood + 0.5 * sum(each**2 for each in z))

    found = (
        fitted.intercept + fitted.slope * PACK.midpoint,
        fitted.slope,
        fitted.margin_weight,
        fitted.support_weight,
    )
    least = cost(*found)
    for place in range(4):
        for step in (-0.01, 0.01):
            moved = list(found)
            moved[place] += step
            assert cost(*moved) > least


def test_a_fitted_curve_is_read_as_it_was_stored() -> None:
    fitted = fit_calibration(PACK, draw_answers(AWRY, 100))
    assert read_calibration(fitted.to_json()) == fitted
    assert read_calibration({"slope": 12, "intercept": -5.0, "licence": "x"}) == Calibration(12.0, -5.0)
    assert read_calibration({"slope": 12}) == ARCFACE_CALIBRATION


def test_answers_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="answers need"):
        Answers(np.zeros(2), np.zeros(2), np.zeros(2, dtype=np.int64), np.zeros(1, dtype=np.bool_))


@pytest.mark.parametrize("profile", ["r100", "hard", "mobile"])
def test_after_500_answers_a_generated_library_is_calibrated(profile: str) -> None:
    questions = answer_questions(ARCFACE_CALIBRATION, profile=profile)
    fitted = fit_calibration(ARCFACE_CALIBRATION, questions.first(500))
    fresh = questions.after(500)
    assert len(fresh) > 3000
    assert measure_reliability(predict(fitted, fresh), fresh.accepted).error <= 0.03


def test_it_is_calibrated_where_the_sure_ones_are_not_asked() -> None:
    """What is left when a machine has assigned what the pack is sure of; there the pack's curve is far off."""
    questions = answer_questions(ARCFACE_CALIBRATION, least=0.2, most=0.995, profile="hard")
    fitted = fit_calibration(ARCFACE_CALIBRATION, questions.first(500))
    fresh = questions.after(500)
    assert len(fresh) > 1000
    assert measure_reliability(predict(ARCFACE_CALIBRATION, fresh), fresh.accepted).error > 0.05
    assert measure_reliability(predict(fitted, fresh), fresh.accepted).error <= 0.03


def test_held_out_confidences_do_not_know_their_answers() -> None:
    """Answers that are noise: a curve may seem to know them, but not one that was fitted on the others."""
    random = np.random.default_rng(0)
    answers = draw_answers(AWRY, 500)
    held_out = cross_validate(PACK, answers)
    assert measure_reliability(held_out, answers.accepted).error < 0.08
    for row in random.integers(0, 500, 5):
        turned = answers.accepted.copy()
        turned[row] = ~turned[row]
        other = cross_validate(PACK, Answers(answers.scores, answers.margins, answers.supports, turned))
        assert other[row] == held_out[row]
        assert np.count_nonzero(other != held_out) >= 400


def test_one_answer_is_held_out_of_the_packs_curve() -> None:
    answers = repeat_answer(1, score=0.5, accepted=True)
    assert cross_validate(PACK, answers).tolist() == [PACK.confidence(0.5)]


def test_reliability_by_hand() -> None:
    found = measure_reliability(np.array([0.05, 0.15, 0.15, 1.0]), np.array([False, True, False, True]))
    assert found.answers == 4
    assert [each.answers for each in found.bins] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert (found.bins[1].low, found.bins[1].high) == (0.1, 0.2)
    assert (found.bins[1].confidence, found.bins[1].accepted) == pytest.approx((0.15, 0.5))
    assert found.error == pytest.approx((0.05 + 2 * 0.35 + 0.0) / 4)
    assert found.brier == pytest.approx((0.05**2 + 0.85**2 + 0.15**2) / 4)


def test_reliability_of_nothing_is_nothing() -> None:
    found = measure_reliability(np.empty(0), np.empty(0, dtype=np.bool_))
    assert (found.answers, found.error, found.brier, len(found.bins)) == (0, 0.0, 0.0, 10)


def test_what_precisions_cost_by_hand() -> None:
    confidences = np.array([0.9, 0.8, 0.8, 0.6, 0.5])
    accepted = np.array([True, True, False, True, False])
    sure, usual, never = price_precisions(confidences, accepted, [0.95, 0.7, 1.01])
    assert (sure.least_confidence, sure.answers, sure.precision, sure.recall) == (0.9, 1, 1.0, 1 / 3)
    # Down to 0.6: above it two of three were right, with it three of four.
    assert (usual.least_confidence, usual.answers, usual.precision, usual.recall) == (0.6, 4, 0.75, 1.0)
    assert (never.least_confidence, never.answers, never.precision, never.recall) == (None, 0, 0.0, 0.0)


def test_precisions_of_no_answers_cost_nothing_and_give_nothing() -> None:
    (cost,) = price_precisions(np.empty(0), np.empty(0, dtype=np.bool_), [0.5])
    assert (cost.target, cost.least_confidence, cost.recall) == (0.5, None, 0.0)
