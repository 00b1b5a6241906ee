"""The five cosines a grouping needs, and where they come from.

They are cosines of one embedding space, so its model pack carries them. A pack without them is calibrated
from the collection itself: random pairs of faces are almost all of different people, so their median mu and
spread s (1.4826 * MAD) describe what strangers look like in this space, and a link must stand z spreads above
it. z grows with the collection, because more pairs make more accidents: z = clip(6 + 0.5 * log10(N / 50000),
5.5, 7) (fitted on generated collections of 5k to 1M faces). Freeze the result per model version: other
thresholds are other groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from services.clustering.grouping.vectors import AnyVectors, take_rows

CALIBRATION_FACES: Final = 5000
"""Below it a collection holds too few people for its random pairs to be strangers."""

_SAMPLE_ROWS: Final = 256
_SAMPLE_COLUMNS: Final = 2048
_SAMPLE_SEED: Final = 0
_MERGE_ABOVE_LINK: Final = 0.15
_KNN_FLOOR: Final = 0.2
_NORMAL_MAD: Final = 1.4826


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Cosines. ``knn_floor``: not a neighbour at or below it. ``link_floor``: forms no group at or below it.
    ``merge``: two groups' centroids above it are one group. ``attach``: a single face above it, and
    ``attach_margin`` ahead of the next group, joins.
    """

    knn_floor: float
    link_floor: float
    merge: float
    attach: float
    attach_margin: float

    def __post_init__(self) -> None:
        if not all(-1.0 <= value <= 1.0 for value in (self.knn_floor, self.link_floor, self.merge, self.attach)):
            raise ValueError("thresholds are cosines, -1..1")
        if self.attach_margin < 0:
            raise ValueError("the attach margin must not be negative")


@dataclass(frozen=True, slots=True)
class ThresholdOverrides:
    """Values from the settings or the request; ``None`` leaves the pack's or the calibrated one."""

    knn_floor: float | None = None
    link_floor: float | None = None
    merge: float | None = None
    attach: float | None = None
    attach_margin: float | None = None


ARCFACE_THRESHOLDS: Final = Thresholds(knn_floor=0.2, link_floor=0.40, merge=0.55, attach=0.35, attach_margin=0.05)
"""For 512-d ArcFace models of the R50/R100 kind: the last resort for a small collection and a pack without
thresholds.
"""


def resolve_thresholds(vectors: AnyVectors, pack: Thresholds | None, overrides: ThresholdOverrides) -> Thresholds:
    """Overrides first, then the pack's, then calibrated from ``vectors`` (N, D) if N >= 5000, else ArcFace's
    usual ones.

    The k-NN floor never lies above what attaching needs, or neighbours would be missing there.
    """
    if pack is not None:
        found = pack
    elif len(vectors) >= CALIBRATION_FACES:
        found = calibrate_thresholds(vectors)
    else:
        found = ARCFACE_THRESHOLDS
    found = Thresholds(
        knn_floor=_first(overrides.knn_floor, found.knn_floor),
        link_floor=_first(overrides.link_floor, found.link_floor),
        merge=_first(overrides.merge, found.merge),
        attach=_first(overrides.attach, found.attach),
        attach_margin=_first(overrides.attach_margin, found.attach_margin),
    )
    return replace(found, knn_floor=min(found.knn_floor, found.attach, found.link_floor))


def calibrate_thresholds(vectors: AnyVectors) -> Thresholds:
    """Thresholds from up to 256 x 2048 fixed pseudo-random pairs of the collection (N, D)."""
    count = len(vectors)
    random = np.random.default_rng(_SAMPLE_SEED)
    rows = np.sort(random.choice(count, min(_SAMPLE_ROWS, count), replace=False))
    columns = np.sort(random.choice(count, min(_SAMPLE_COLUMNS, count), replace=False))
    cosines = (take_rows(vectors, rows) @ take_rows(vectors, columns).T)[rows[:, None] != columns[None, :]]
    middle = float(np.median(cosines))
    spread = _NORMAL_MAD * float(np.median(np.abs(cosines - middle)))
    strictness = min(7.0, max(5.5, 6.0 + 0.5 * math.log10(count / 50_000)))
    link = min(0.8, middle + strictness * spread)
    return Thresholds(
        knn_floor=_KNN_FLOOR,
        link_floor=link,
        merge=min(0.95, link + _MERGE_ABOVE_LINK),
        attach=middle + (strictness - 1.0) * spread,
        attach_margin=ARCFACE_THRESHOLDS.attach_margin,
    )


def _first(override: float | None, otherwise: float) -> float:
    return otherwise if override is None else override
