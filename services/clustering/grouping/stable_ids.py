"""Cluster ids that stay: a new grouping takes over the ids of the old one where it holds the same faces.

Pairs of an old cluster and a new group are taken by overlap, the largest first, each side once. An overlap
counts only if it is at least half of the smaller of the two (the old cluster counted by the faces still being
grouped): a group that merely caught three strays of a dissolved cluster does not become it, while the larger
half of a split one does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

MIN_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class StableIds:
    """``ids[g]`` is the cluster id of new group g; ``kept`` how many are old ones; ``gone`` the old ids
    without a successor, sorted.
    """

    ids: tuple[str, ...]
    kept: int
    gone: tuple[str, ...]


def keep_cluster_ids(
    old_ids: Sequence[str | None], labels: npt.NDArray[np.integer], new_id: Callable[[], str]
) -> StableIds:
    """Name groups 0..K-1 of ``labels`` (N,; -1 noise), given each face's old cluster id (``None``: had none).

    ``new_id`` is called once per group without an old id, in the order of the groups. Equal overlaps are
    decided by the lower group, then the smaller old id. Raises ``ValueError`` if the two differ in length.
    """
    if len(old_ids) != len(labels):
        raise ValueError("every face needs its old cluster id or None")
    names = labels.tolist()
    old_sizes = Counter(old for old in old_ids if old is not None)
    new_sizes = Counter(name for name in names if name >= 0)
    overlaps = Counter((name, old) for name, old in zip(names, old_ids, strict=True) if name >= 0 and old is not None)
    given: dict[int, str] = {}
    used: set[str] = set()
    for (group, old), shared in sorted(overlaps.items(), key=lambda item: (-item[1], item[0])):
        if group in given or old in used or shared < MIN_SHARE * min(old_sizes[old], new_sizes[group]):
            continue
        given[group] = old
        used.add(old)
    groups = int(labels.max(initial=-1)) + 1
    ids = tuple(given[group] if group in given else new_id() for group in range(groups))
    return StableIds(ids=ids, kept=len(given), gone=tuple(sorted(set(old_sizes) - used)))
