"""From a match to a probability: "how often is a match like this the right person?".

The model pack carries a logistic curve of the score (a cosine), fitted on its own genuine and impostor pairs;
evidence beside the score moves the log-odds by documented, monotone steps:

    log-odds = intercept + slope * score
             + margin_weight  * clip(margin - neutral_margin, -margin_span, +margin_span)
             + support_weight * log2(min(support, support_cap))              for support >= 1

A margin equal to ``neutral_margin`` and one supporting prototype therefore change nothing. The curve is the
prior; a library's own answers refine it: :mod:`shared.faces.calibration_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration curve. ``slope`` and ``intercept`` belong to one embedding space and come from its pack.

    Raises ``ValueError`` if it would not be monotone (slope not above 0, a negative weight) or is not finite.
    """

    slope: float
    intercept: float
    margin_weight: float = 8.0
    neutral_margin: float = 0.1
    margin_span: float = 0.2
    support_weight: float = 0.4
    support_cap: int = 8

    def __post_init__(self) -> None:
        numbers = (
            self.slope,
            self.intercept,
            self.margin_weight,
            self.neutral_margin,
            self.margin_span,
            self.support_weight,
        )
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("a calibration needs finite numbers")
        if self.slope <= 0:
            raise ValueError("the slope of a calibration must be above 0: a higher cosine is never worse")
        if min(self.margin_weight, self.support_weight, self.margin_span) < 0 or self.support_cap < 1:
            raise ValueError("the weights of a calibration must not be negative")

    def to_json(self) -> dict[str, float]:
        """As it is stored, for :func:`read_calibration`."""
        return asdict(self)

    @property
    def midpoint(self) -> float:
        """The score at which yes and no are equally likely, without further evidence."""
        return -self.intercept / self.slope

    def confidence(self, score: float, margin: float | None = None, support: int = 1) -> float:
        """Probability 0..1 that the match is right; ``margin=None`` (no rival known) adds nothing."""
        margins = np.array([self.neutral_margin if margin is None else margin])
        return float(self.confidences(np.array([score]), margins, np.array([support]))[0])

    def confidences(
        self,
        scores: npt.NDArray[np.floating],
        margins: npt.NDArray[np.floating] | None = None,
        supports: npt.NDArray[np.integer] | None = None,
    ) -> Floats:
        """Probabilities (N,) of matches (N,); never falling as score, margin or support rise."""
        log_odds = self.intercept + self.slope * np.asarray(scores, dtype=np.float64)
        return 1.0 / (1.0 + np.exp(-np.clip(log_odds + self._adjust(margins, supports), -500.0, 500.0)))

    def score_for(self, probability: float, margin: float | None = None, support: int = 1) -> float:
        """The inverse: the lowest score whose confidence reaches ``probability`` (above 0 and below 1).

        Everything accepted above it is at least so likely each, so the precision of the whole is higher: the
        floor for a target precision is on the safe side. May lie outside -1..1, which means "always" or
        "never".
        """
        if not 0.0 < probability < 1.0:
            raise ValueError("a target precision lies between 0 and 1")
        margins = np.array([self.neutral_margin if margin is None else margin])
        moved = float(self._adjust(margins, np.array([support]))[0])
        return (math.log(probability / (1.0 - probability)) - self.intercept - moved) / self.slope

    def _adjust(self, margins: npt.NDArray[np.floating] | None, supports: npt.NDArray[np.integer] | None) -> Floats:
        moved = np.zeros(1)
        if margins is not None:
            lead = np.asarray(margins, dtype=np.float64) - self.neutral_margin
            moved = moved + self.margin_weight * np.clip(lead, -self.margin_span, self.margin_span)
        if supports is not None:
            moved = moved + self.support_weight * np.log2(np.clip(supports, 1, self.support_cap))
        return moved


ARCFACE_CALIBRATION: Final = Calibration(slope=20.0, intercept=-7.0)
"""For 512-d ArcFace models of the R50/R100 kind, whose packs carry no curve: yes and no are equally likely at 0.35."""


def read_calibration(stored: Mapping[str, Any]) -> Calibration:
    """The curve a pack carries or a fit has stored, else ArcFace's; what it does not name is as usual.

    Raises ``ValueError`` for a stored calibration that is none.
    """
    if "slope" not in stored or "intercept" not in stored:
        return ARCFACE_CALIBRATION
    numbers = {each.name: float(stored[each.name]) for each in fields(Calibration) if each.name in stored}
    cap = int(numbers.pop("support_cap", ARCFACE_CALIBRATION.support_cap))
    return Calibration(**numbers, support_cap=cap)
