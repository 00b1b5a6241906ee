"""Cluster ids that stay: a new grouping takes over the ids of the old one where it holds the same faces.

Pairs of an old cluster and a new group are taken by overlap, the largest first, each side once. An overlap
counts only if it is at least half of the smaller of the two (the old cluster counted by the faces still being
grouped): a group that merely caught three strays of a dissolved cluster does not become it, while the larger
half of a split one does. A cluster that was put away passes its id only to a group that is put away, and the
other way round.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

MIN_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of the clusters there were: ``kept`` their id, of those ``grown`` (more of the grouped faces than before),
    ``split`` (faces in more than one group now), ``gone`` (the id ended); groups made of several clusters (``merged``), and
    with a new id (``created``).
    """

    kept: int
    grown: int
    split: int
    merged: int
    created: int
    gone: int


@dataclass(frozen=True, slots=True)
class StableIds:
    """``ids[g]`` is the cluster id of new group g."""

    ids: tuple[str, ...]
    fate: Fate


def keep_cluster_ids(
    old_ids: Sequence[str | None],
    labels: npt.NDArray[np.integer],
    new_id: Callable[[], str],
    *,
    claims: Mapping[int, str] | None = None,
    old_away: npt.NDArray[np.bool_] | None = None,
    new_away: npt.NDArray[np.bool_] | None = None,
    lasting: Collection[str] = (),
) -> StableIds:
    """Name groups 0..K-1 of ``labels`` (N,; -1 noise), given each face's old cluster id (``None``: had none).

    ``claims``: the id of a group, where it is known.
    ``old_away`` (N,): the face's old cluster was put away; ``new_away`` (K,): the group is; none are by default.
    ``lasting`` ids do not end if no group takes them: faces without a group keep them. ``new_id`` is called once
    per group without an old id, in the order of the groups. Equal overlaps are decided by the lower group, then
    the smaller old id. Raises ``ValueError`` if the two differ in length.
    """
    if len(old_ids) != len(labels):
        raise ValueError("every face needs its old cluster id or None")
    groups = int(labels.max(initial=-1)) + 1
    put_away = set() if old_away is None else {old for old, away in zip(old_ids, old_away, strict=True) if away}
    is_away = [False] * groups if new_away is None else new_away.tolist()
    names = labels.tolist()
    old_sizes = Counter(old for old in old_ids if old is not None)
    new_sizes = Counter(name for name in names if name >= 0)
    overlaps = Counter((name, old) for name, old in zip(names, old_ids, strict=True) if name >= 0 and old is not None)
    given = dict(claims or {})
    used = set(given.values())
    for (group, old), shared in sorted(overlaps.items(), key=lambda item: (-item[1], item[0])):
        if group in given or old in used or is_away[group] != (old in put_away):
            continue
        if shared < MIN_SHARE * min(old_sizes[old], new_sizes[group]):
            continue
        given[group] = old
        used.add(old)
    ids = tuple(given[group] if group in given else new_id() for group in range(groups))
    successors: dict[str, set[int]] = defaultdict(set)
    origins: dict[int, set[str]] = defaultdict(set)
    for group, old in overlaps:
        successors[old].add(group)
        origins[group].add(old)
    return StableIds(
        ids=ids,
        fate=Fate(
            kept=len(given),
            grown=sum(new_sizes[group] > old_sizes[old] for group, old in given.items()),
            split=sum(len(found) > 1 for found in successors.values()),
            merged=sum(len(found) > 1 for found in origins.values()),
            created=groups - len(given),
            gone=len(set(old_sizes) - used - set(lasting)),
        ),
    )
