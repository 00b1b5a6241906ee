"""What questions and assignments are worth, held against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.areas.suggestions.faces import DrawnFaces
from bench.areas.suggestions.people import Pairs


@dataclass(frozen=True, slots=True)
class Found:
    """``precision``: share of the pairs that are true. ``recall``: share of the wanted faces that were found;
    ``recall_of_persons``: the mean of each person's own. A wanted face is found if it, or the same face in a near-duplicate
    photo, is in a pair with its person: one answer settles both.
    """

    pairs: int
    precision: float
    recall: float
    recall_of_persons: float


def score_pairs(drawn: DrawnFaces, pairs: Pairs, wanted: npt.NDArray[np.bool_]) -> Found:
    """Figures of ``pairs``; ``wanted`` (N,) are the faces that are to be found."""
    right = pairs.right(drawn)
    looked_for = np.flatnonzero(wanted)
    found = np.isin(drawn.shots[looked_for], drawn.shots[pairs.faces[right]])
    persons, at = np.unique(drawn.truth[looked_for], return_inverse=True)
    of_each = np.bincount(at, weights=found, minlength=len(persons)) / np.bincount(at, minlength=len(persons))
    return Found(
        pairs=len(right),
        precision=float(right.mean()) if len(right) else 0.0,
        recall=float(found.mean()),
        recall_of_persons=float(of_each.mean()),
    )
