"""A library's own calibration curve, learnt from the answers people gave, and how far a curve may be trusted.

The curve keeps the form of :class:`shared.faces.calibration.Calibration`, which is linear in the log-odds: a level, and
weights of the score, of the margin and of the support. The four are chosen to make the answers and the prior most likely
together (maximum a posteriori). The prior is the model pack's curve with a standard deviation for each of the four, so
that with no answer the curve is the pack's, a few answers move it a little, and with hundreds the pack is hardly heard.
The weights are kept from falling below 0 (the score's, below a fraction of the pack's): a fitted curve is as monotone
as any other. See ``docs/adr/0017-calibrated-by-answers.md`` for the figures.

What answers cannot tell: only pairs that were asked about are answered, which are those that some curve thought likely
enough. Below that, and for persons nobody asks about, the curve is the pack's word carried on, not a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.faces.calibration import Calibration, Floats

LEVEL_SD: Final = 1.0
"""How far off the pack's curve may be at its midpoint, in log-odds: as heard as four answers that could go either way."""

SLOPE_SD: Final = 0.5
"""How far off its slope may be, as a share of it."""

MARGIN_SD: Final = 8.0
SUPPORT_SD: Final = 0.5
LEAST_SLOPE: Final = 0.1
"""A fitted slope is at least this share of the pack's, so that a higher cosine is always better."""

FOLDS: Final = 5
BINS: Final = 10
_MAX_STEPS: Final = 100
_CLOSE: Final = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answered questions in order of time, with the evidence each was asked on.

    ``scores`` (N,) cosines; ``margins`` (N,), NaN where there was no rival; ``supports`` (N,) prototypes; ``accepted``
    (N,) True for yes. Raises ``ValueError`` for arrays of unequal length.
    """

    scores: Floats
    margins: Floats
    supports: npt.NDArray[np.int64]
    accepted: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not len(self.scores) == len(self.margins) == len(self.supports) == len(self.accepted):
            raise ValueError("answers need a score, a margin, a support and a yes or no each")

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: npt.NDArray[np.bool_]) -> Answers:
        """Those of a mask (N,)."""
        return Answers(self.scores[rows], self.margins[rows], self.supports[rows], self.accepted[rows])


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers whose confidence lay in ``low``..``high``, the upper end excluded except by 1; shares are 0 for none.

    ``confidence``: their mean. ``accepted``: share of them that were yes.
    """

    low: float
    high: float
    answers: int
    confidence: float
    accepted: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How confidences compare with answers.

    ``error``: expected calibration error, the mean over answers of how far their bin's share of yes is from its mean
    confidence (Guo et al., 2017, On Calibration of Modern Neural Networks). ``brier``: mean squared difference of
    confidence and answer (Brier, 1950). Both 0 where there is no answer.
    """

    answers: int
    error: float
    brier: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class PrecisionCost:
    """What insisting on a precision costs.

    ``least_confidence``: the lowest confidence at or above which at least ``target`` of the answers were yes, None if
    there is none; ``answers`` lay so high, ``precision`` of them were yes, and they held ``recall`` of all yes answers.
    """

    target: float
    least_confidence: float | None
    answers: int
    precision: float
    recall: float


def predict(curve: Calibration, answers: Answers) -> Floats:
    """What a curve would have said (N,) of the questions that were answered."""
    margins = np.where(np.isnan(answers.margins), curve.neutral_margin, answers.margins)
    return curve.confidences(answers.scores, margins, answers.supports)


def fit_calibration(prior: Calibration, answers: Answers) -> Calibration:
    """The most likely curve (see the module); ``prior`` itself if there is no answer. Deterministic.

    Newton's method, projected onto the bounds: some ten passes over N x 4 numbers.
    """
    if not len(answers):
        return prior
    # Around the pack's midpoint level and slope hardly depend on each other, and the level has a meaning of its own.
    margins = np.where(np.isnan(answers.margins), prior.neutral_margin, answers.margins)
    features = np.column_stack(
        [
            np.ones(len(answers)),
            answers.scores - prior.midpoint,
            np.clip(margins - prior.neutral_margin, -prior.margin_span, prior.margin_span),
            np.log2(np.clip(answers.supports, 1, prior.support_cap)),
        ]
    )
    level, slope, margin_weight, support_weight = _maximise(
        features,
        answers.accepted.astype(np.float64),
        centre=np.array([0.0, prior.slope, prior.margin_weight, prior.support_weight]),
        spread=np.array([LEVEL_SD, SLOPE_SD * prior.slope, MARGIN_SD, SUPPORT_SD]),
        least=np.array([-np.inf, LEAST_SLOPE * prior.slope, 0.0, 0.0]),
    ).tolist()
    return replace(
        prior,
        slope=slope,
        intercept=level - slope * prior.midpoint,
        margin_weight=margin_weight,
        support_weight=support_weight,
    )


def cross_validate(prior: Calibration, answers: Answers, folds: int = FOLDS) -> Floats:
    """Confidences (N,) of curves that did not know the answer: each fold's, by a curve fitted on all others.

    Every ``folds``-th answer in order of time is of one fold.
    """
    fold = np.arange(len(answers)) % folds
    confidences = np.empty(len(answers))
    for number in range(folds):
        held_out = fold == number
        curve = fit_calibration(prior, answers.take(~held_out))
        confidences[held_out] = predict(curve, answers.take(held_out))
    return confidences


def measure_reliability(confidences: Floats, accepted: npt.NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Hold confidences (N,) against answers (N,), in ``bins`` bins of equal width."""
    count = len(confidences)
    at = np.minimum((np.asarray(confidences, dtype=np.float64) * bins).astype(np.int64), bins - 1)
    answers = np.bincount(at, minlength=bins)
    shown = np.maximum(answers, 1)
    means = np.bincount(at, weights=confidences, minlength=bins) / shown
    shares = np.bincount(at, weights=accepted, minlength=bins) / shown
    return Reliability(
        answers=count,
        error=float((answers * np.abs(means - shares)).sum()) / max(count, 1),
        brier=float(((confidences - accepted) ** 2).sum()) / max(count, 1),
        bins=tuple(
            ReliabilityBin(number / bins, (number + 1) / bins, int(answers[number]), float(mean), float(share))
            for number, (mean, share) in enumerate(zip(means, shares, strict=True))
        ),
    )


def price_precisions(
    confidences: Floats, accepted: npt.NDArray[np.bool_], targets: Sequence[float]
) -> tuple[PrecisionCost, ...]:
    """What each target precision costs among these answers (N,), in the targets' order."""
    order = np.argsort(-confidences, kind="stable")
    sorted_confidences, right = confidences[order], np.cumsum(accepted[order])
    # Equal confidences stand or fall together.
    ends = np.flatnonzero(np.append(sorted_confidences[1:] < sorted_confidences[:-1], True)) if len(order) else order
    precision = right[ends] / (ends + 1)
    costs = []
    for target in targets:
        reached = ends[precision >= target]
        if not len(reached):
            costs.append(PrecisionCost(target, None, 0, 0.0, 0.0))
            continue
        last = int(reached[-1])
        found = int(right[last])
        costs.append(
            PrecisionCost(
                target=target,
                least_confidence=float(sorted_confidences[last]),
                answers=last + 1,
                precision=found / (last + 1),
                recall=found / max(int(right[-1]), 1),
            )
        )
    return tuple(costs)


def _maximise(features: Floats, accepted: Floats, *, centre: Floats, spread: Floats, least: Floats) -> Floats:
    """The parameters (4,) of greatest posterior at or above ``least``: a convex problem with one answer.

    Bertsekas, 1982, Projected Newton Methods for Optimization Problems with Simple Constraints.
    """
    precision = 1.0 / spread**2

    def cost(parameters: Floats) -> float:
        log_odds = features @ parameters
        likelihood = np.logaddexp(0.0, log_odds).sum() - accepted @ log_odds
        return float(likelihood + 0.5 * (precision * (parameters - centre) ** 2).sum())

    parameters, now = centre.copy(), cost(centre)
    for _ in range(_MAX_STEPS):
        chances = 1.0 / (1.0 + np.exp(-np.clip(features @ parameters, -500.0, 500.0)))
        slopes = features.T @ (chances - accepted) + precision * (parameters - centre)
        free = (parameters > least) | (slopes < 0)
        curvature = (features * (chances * (1 - chances))[:, None]).T @ features + np.diag(precision)
        step = np.zeros_like(parameters)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], slopes[free])
        length, moved, then = 1.0, parameters, now
        while length > _CLOSE:
            moved = np.maximum(parameters - length * step, least)
            then = cost(moved)
            if then <= now - 1e-4 * float(slopes @ (parameters - moved)):
                break
            length /= 2
        else:
            return parameters
        if np.abs((moved - parameters) / spread).max() < _CLOSE:
            return moved
        parameters, now = moved, then
    return parameters
