"""What humans have put together stays together, and apart from what they put elsewhere.

Anchors number the faces a human has placed: equal numbers are one group, different numbers never are. They are applied to the
first groups, whichever algorithm formed them, and guarded from then on: a merge never joins groups of two anchors
(:mod:`merge`), and attaching moves free faces only (:mod:`attach`).

A formed group belongs to an anchor if more than half of the anchor's faces lie in it. Then its free faces come along; those of
a group that belongs to several go each to the nearest. Where fewer of an anchor's faces lie, a human has taken them out of a
group they resemble, and that is no reason for the rest of it to follow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.forest import NOISE, compact_labels
from services.clustering.grouping.sums import measure_cosines, sum_groups
from services.clustering.grouping.vectors import AnyVectors, BetweenBlocks

FREE = -1

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]


def apply_anchors(vectors: AnyVectors, labels: Ints, anchors: Ints, between_blocks: BetweenBlocks) -> Ints:
    """Labels (N,) in which every anchor (N,; -1 free) has one group of its own, however small, numbered anew.

    ``vectors`` are unit rows (N, D); ``labels`` (N,) the groups as formed, -1 noise.
    """
    placed = anchors >= 0
    if not placed.any():
        return labels
    names = compact_labels(anchors)
    count = int(names.max()) + 1
    homes, owners = _find_homes(labels, names)
    free = ~placed & (labels >= 0)
    result = np.full(len(labels), NOISE, dtype=np.int32)
    result[free] = labels[free] + count
    result[placed] = names[placed]

    groups = int(labels.max(initial=NOISE)) + 1
    holders = np.bincount(homes, minlength=groups)
    owner_of = np.full(groups, FREE, dtype=np.int32)
    owner_of[homes] = owners
    alone = np.flatnonzero(free)
    alone = alone[holders[labels[alone]] == 1]
    result[alone] = owner_of[labels[alone]]
    shared = np.flatnonzero(holders > 1)
    if len(shared):
        sums = sum_groups(vectors, names, between_blocks)
        for group in shared:
            rows = np.flatnonzero(free & (labels == group))
            rivals = owners[homes == group]
            result[rows] = rivals[measure_cosines(vectors, rows, sums[rivals]).argmax(axis=1)]
    return compact_labels(result)


def name_anchored_groups(labels: Ints, anchors: Ints, groups: int) -> Ints:
    """The anchor (K,) of each of ``groups`` groups, -1 for those without; ``labels`` as :func:`apply_anchors` left them, or
    with anchored faces in none.
    """
    found = np.full(groups, FREE, dtype=np.int32)
    placed = (anchors >= 0) & (labels >= 0)
    found[labels[placed]] = anchors[placed]
    return found


def _find_homes(labels: Ints, names: Ints) -> tuple[Longs, Ints]:
    """Pairs of a formed group and an anchor that has more than half of its faces there, by anchor."""
    rows = np.flatnonzero((names >= 0) & (labels >= 0))
    sizes = np.bincount(names[names >= 0])
    width = np.int64(labels.max(initial=NOISE)) + 1
    cells, inside = np.unique(names[rows].astype(np.int64) * width + labels[rows], return_counts=True)
    owners = cells // width if width else cells
    home = 2 * inside > sizes[owners]
    return (cells % width)[home] if width else cells[home], owners[home].astype(np.int32)
