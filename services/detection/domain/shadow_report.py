"""The shadow report: two models measured on the same faces, whose people are known because somebody said so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from shared.faces.embeddings import Vectors
from shared.faces.verification import (
    PairScores,
    agree_on_neighbours,
    carry_threshold,
    equal_error_rate,
    find_threshold,
    score_pairs,
    share_accepted,
)

FAR: Final = 1e-3
NEIGHBOURS: Final = 10
# With fewer pairs than that, one in a thousand is none.
MIN_IMPOSTORS: Final = 1000
MAX_FACES: Final = 4000
MAX_FACES_PER_PERSON: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class ConfirmedFaces:
    """Faces that people have named, with the vectors of both models: ``old`` (N, D), ``new`` (N, E), ``people`` (N,)."""

    people: npt.NDArray[np.int64]
    old: Vectors
    new: Vectors


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model's figures. Without pairs (both counts 0) there were too few confirmed faces, and none means anything."""

    genuine_pairs: int = 0
    impostor_pairs: int = 0
    tar: float = 0.0
    threshold: float = 0.0
    eer: float = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    equivalent_thresholds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """Both models, and how far they agree on each face's ten nearest others, 0..1."""

    old: ModelFigures
    new: ModelFigures
    neighbour_agreement: float = 0.0

    def describe(self) -> dict[str, Any]:
        """As the migration keeps it."""
        return asdict(self)

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """From what :meth:`describe` made."""
        return cls(ModelFigures(**stored["old"]), ModelFigures(**stored["new"]), stored["neighbour_agreement"])


def compare_models(
    faces: ConfirmedFaces, old_thresholds: Mapping[str, float], new_thresholds: Mapping[str, float]
) -> ShadowReport:
    """Measure both. The thresholds are each pack's own, by name; those of margins are no cosines and are left out.

    Takes seconds for :data:`MAX_FACES` faces: call it in a thread.
    """
    old_cosines, new_cosines = _cosines_of(old_thresholds), _cosines_of(new_thresholds)
    old, new = score_pairs(faces.old, faces.people), score_pairs(faces.new, faces.people)
    if not len(old.genuine) or len(old.impostor) < MIN_IMPOSTORS:
        return ShadowReport(ModelFigures(thresholds=old_cosines), ModelFigures(thresholds=new_cosines))
    return ShadowReport(
        old=_measure(old, old_cosines, _carry(new_cosines, new, old)),
        new=_measure(new, new_cosines, _carry(old_cosines, old, new)),
        neighbour_agreement=agree_on_neighbours(faces.old, faces.new, NEIGHBOURS),
    )


def _measure(pairs: PairScores, thresholds: Mapping[str, float], equivalent: Mapping[str, float]) -> ModelFigures:
    threshold = find_threshold(pairs.impostor, FAR)
    return ModelFigures(
        genuine_pairs=len(pairs.genuine),
        impostor_pairs=len(pairs.impostor),
        tar=share_accepted(pairs.genuine, threshold),
        threshold=threshold,
        eer=equal_error_rate(pairs),
        thresholds=thresholds,
        equivalent_thresholds=equivalent,
    )


def _carry(thresholds: Mapping[str, float], of: PairScores, to: PairScores) -> dict[str, float]:
    carried = {name: carry_threshold(value, of.impostor, to.impostor) for name, value in thresholds.items()}
    return {name: value for name, value in carried.items() if value is not None}


def _cosines_of(thresholds: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in thresholds.items() if not name.endswith("_margin")}
