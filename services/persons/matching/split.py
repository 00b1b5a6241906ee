"""Who is learnt from, who decides when to stop, and who the outcome is measured on: persons, never faces of one person.

A matcher that has seen a person tells that person apart better than it will tell anybody new; so no person is in two parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.persons.matching.request import People, TrainingOptions

HELD_OUT: Final = 1 / 3
TUNING: Final = 0.15
_TUNING_FACES: Final = 0.75
"""Of the faces that may be held out: the parts are measured often, the end once."""

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class PeopleSplit:
    """Rows of the three parts, each in order of person."""

    training: Rows
    tuning: Rows
    held_out: Rows


def split_people(people: People, options: TrainingOptions) -> PeopleSplit:
    """Split by person, at random by the seed: a third held out, 15 % for tuning, within the number of faces to measure.

    Raises ``ValueError`` for fewer than three persons.
    """
    names, sizes = np.unique(people, return_counts=True)
    if len(names) < 3:
        raise ValueError("a part of the split would be without a person")
    random = np.random.default_rng(options.seed)
    order = random.permutation(len(names))
    shown = np.minimum(sizes[order], options.measured_per_person)
    held = _count_within(shown, round(len(names) * HELD_OUT), options.measured_faces)
    limit = int(options.measured_faces * _TUNING_FACES)
    tuned = _count_within(shown[held:], round(len(names) * TUNING), limit)
    parts = np.split(order, [held, held + tuned])
    held_out, tuning, training = (np.flatnonzero(np.isin(people, names[part])) for part in parts)
    return PeopleSplit(
        training=training[np.argsort(people[training], kind="stable")],
        tuning=_show_some(people, tuning, options.measured_per_person, random),
        held_out=_show_some(people, held_out, options.measured_per_person, random),
    )


def _count_within(sizes: npt.NDArray[np.int64], wanted: int, faces: int) -> int:
    return max(1, min(wanted, int(np.searchsorted(np.cumsum(sizes), faces, side="right"))))


def _show_some(people: People, rows: Rows, most: int, random: np.random.Generator) -> Rows:
    rows = random.permutation(rows)
    rows = rows[np.argsort(people[rows], kind="stable")]
    first = np.searchsorted(people[rows], people[rows], side="left")
    return rows[np.arange(len(rows)) - first < most]
