"""Merging groups whose centroids agree: hierarchical clustering with centroid linkage over the pairs worth a look.

Pairs come off a heap, the most alike first. Each is compared anew with the centroids as they are by then, and
goes back if it has become less alike than the next one. Groups that share photos are not merged: two faces of
one photo are two people, so a share of common photos is a veto (a few are allowed: mirrors, collages and
wrong members exist).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.disjoint_sets import find_root
from services.clustering.grouping.forest import compact_labels
from shared.faces.embeddings import Vectors

MAX_ROUNDS: Final = 4
CANDIDATE_SLACK: Final = 0.03
"""Pairs a little below the threshold are kept as candidates: merging takes the noise out of centroids and
lifts them.
"""

_BLOCK: Final = 1024
_SUM_ROWS: Final = 2048

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Merged:
    """``labels`` (N,) after merging, how many merges were made, and how many distinct pairs the veto kept
    apart at the end.
    """

    labels: Ints
    merges: int
    vetoed: int


def merge_groups(vectors: Vectors, labels: Ints, assets: Longs, *, threshold: float, veto_share: float) -> Merged:
    """Merge groups of unit vectors (N, D) whose centroids' cosine is above ``threshold``.

    ``assets`` (N,) are 0..A-1. A pair is vetoed if the photos both groups appear in are more than
    ``veto_share`` of the photos of the smaller group. Repeats with fresh candidates until nothing merges, at
    most four times.
    """
    merges = vetoed = 0
    for _ in range(MAX_ROUNDS):
        sums = sum_groups(vectors, labels)
        pairs, cosines = find_pairs(sums, threshold - CANDIDATE_SLACK)
        parents, made, vetoed = link_groups(
            pairs,
            cosines,
            sums,
            list_members(labels, len(sums)),
            assets,
            int(assets.max(initial=-1)) + 1,
            threshold,
            veto_share,
        )
        if made == 0:
            break
        merges += made
        labels = compact_labels(np.where(labels >= 0, parents[labels], -1))
    return Merged(labels, merges, vetoed)


def sum_groups(vectors: Vectors, labels: Ints) -> Floats:
    """Plain sums (K, D) of each group's vectors: what a centroid of merged groups can be had from at once,
    unlike a trimmed mean.
    """
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    sums = np.zeros((int(labels.max(initial=-1)) + 1, vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(order), _SUM_ROWS):
        rows = order[start : start + _SUM_ROWS]
        names = labels[rows]
        firsts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
        sums[names[firsts]] += np.add.reduceat(vectors[rows], firsts, axis=0)
    return sums


def find_pairs(sums: Floats, least: float) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Pairs (P, 2) of groups, smaller first, whose centroids' cosine is at least ``least``, and the cosines (P,)."""
    units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    pairs: list[Ints] = [np.empty((0, 2), dtype=np.int32)]
    cosines: list[Floats] = [np.empty(0, dtype=np.float32)]
    for upper in range(0, len(units), _BLOCK):
        for lower in range(upper, len(units), _BLOCK):
            product = units[upper : upper + _BLOCK] @ units[lower : lower + _BLOCK].T
            rows, columns = np.nonzero(product >= least)
            keep = columns + lower > rows + upper
            rows, columns = rows[keep], columns[keep]
            pairs.append(np.stack([rows + upper, columns + lower], axis=1).astype(np.int32))
            cosines.append(product[rows, columns])
    return np.concatenate(pairs), np.concatenate(cosines).astype(np.float64)


def list_members(labels: Ints, groups: int) -> tuple[Longs, Longs]:
    """Rows sorted by group, and where each group starts (K + 1,)."""
    order = np.argsort(labels, kind="stable").astype(np.int64)
    starts = np.searchsorted(labels[order], np.arange(groups + 1)).astype(np.int64)
    return order, starts


def link_groups(
    pairs: Ints,
    cosines: npt.NDArray[np.float64],
    sums: Floats,
    members: tuple[Longs, Longs],
    assets: Longs,
    asset_count: int,
    threshold: float,
    veto_share: float,
) -> tuple[Ints, int, int]:
    """Merge along candidate pairs; ``sums`` is overwritten. Returns the root group of each group, merges
    made, pairs vetoed.
    """
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -cosines))
    parents, made, vetoed = link_pairs(
        pairs[order], cosines[order], sums, members[0], members[1], assets, asset_count, threshold, veto_share
    )
    blocked = {
        (min(a, b), max(a, b))
        for a, b in zip(parents[vetoed[:, 0]].tolist(), parents[vetoed[:, 1]].tolist(), strict=True)
    }
    return parents, made, len(blocked)


@compiled
def measure_shared(
    one: int, two: int, head: Longs, following: Longs, photos: Longs, assets: Longs, marks: Longs, stamp: int
) -> float:
    """Photos in which both groups appear, as a share of the photos of the one that is in fewer (faces of it
    counted once a photo).
    """
    small, large = (one, two) if photos[one] <= photos[two] else (two, one)
    row = head[small]
    while row >= 0:
        marks[assets[row]] = stamp
        row = following[row]
    shared = 0
    row = head[large]
    while row >= 0:
        if marks[assets[row]] == stamp:
            shared += 1
            marks[assets[row]] = stamp - 1
        row = following[row]
    return shared / float(max(1, photos[small]))


@compiled
def link_pairs(
    pairs: Ints,
    cosines: npt.NDArray[np.float64],
    sums: Floats,
    order: Longs,
    starts: Longs,
    assets: Longs,
    asset_count: int,
    threshold: float,
    veto_share: float,
) -> tuple[Ints, int, Ints]:
    """The loop of :func:`link_groups`; ``pairs`` sorted from most to least alike, which already is a heap."""
    groups = sums.shape[0]
    parents = np.arange(groups).astype(np.int32)
    counts = np.empty(groups, np.int64)
    photos = np.empty(groups, np.int64)
    head = np.full(groups, -1, np.int64)
    tail = np.full(groups, -1, np.int64)
    following = np.full(assets.shape[0], -1, np.int64)
    marks = np.zeros(asset_count, np.int64)
    stamp = 0
    lengths = np.empty(groups, np.float64)
    for group in range(groups):
        counts[group] = starts[group + 1] - starts[group]
        lengths[group] = np.sqrt(np.dot(sums[group], sums[group]))
        stamp += 2
        different = 0
        for place in range(starts[group], starts[group + 1]):
            row = order[place]
            if tail[group] < 0:
                head[group] = row
            else:
                following[tail[group]] = row
            tail[group] = row
            if marks[assets[row]] != stamp:
                marks[assets[row]] = stamp
                different += 1
        photos[group] = different
    heap_pairs = pairs.copy()
    heap = cosines.copy()
    vetoed = np.empty((len(pairs), 2), np.int32)
    size = len(pairs)
    made = 0
    vetoes = 0
    while size > 0:
        expected = heap[0]
        one = find_root(parents, heap_pairs[0, 0])
        two = find_root(parents, heap_pairs[0, 1])
        size -= 1
        sift_down(heap, heap_pairs, size)
        if one == two:
            continue
        cosine = np.dot(sums[one], sums[two]) / (lengths[one] * lengths[two])
        if cosine <= threshold:
            continue
        if cosine < expected - 1e-6 and size > 0 and cosine < heap[0]:
            sift_up(heap, heap_pairs, size, cosine, one, two)
            size += 1
            continue
        stamp += 2
        if measure_shared(one, two, head, following, photos, assets, marks, stamp) > veto_share:
            vetoed[vetoes, 0] = one
            vetoed[vetoes, 1] = two
            vetoes += 1
            continue
        if counts[one] < counts[two] or (counts[one] == counts[two] and two < one):
            one, two = two, one
        parents[two] = one
        counts[one] += counts[two]
        photos[one] += photos[two]
        sums[one] += sums[two]
        lengths[one] = np.sqrt(np.dot(sums[one], sums[one]))
        following[tail[one]] = head[two]
        tail[one] = tail[two]
        made += 1
    for group in range(groups):
        parents[group] = find_root(parents, group)
    return parents, made, vetoed[:vetoes]


@compiled
def sift_down(heap: npt.NDArray[np.float64], pairs: Ints, size: int) -> None:
    """Remove the top of a heap that had ``size + 1`` entries: its last entry sinks from the top."""
    value = heap[size]
    one = pairs[size, 0]
    two = pairs[size, 1]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[place] = heap[child]
        pairs[place, 0] = pairs[child, 0]
        pairs[place, 1] = pairs[child, 1]
        place = child
    heap[place] = value
    pairs[place, 0] = one
    pairs[place, 1] = two


@compiled
def sift_up(heap: npt.NDArray[np.float64], pairs: Ints, size: int, value: float, one: int, two: int) -> None:
    """Add an entry to a heap of ``size`` entries."""
    place = size
    while place > 0:
        above = (place - 1) // 2
        if heap[above] >= value:
            break
        heap[place] = heap[above]
        pairs[place, 0] = pairs[above, 0]
        pairs[place, 1] = pairs[above, 1]
        place = above
    heap[place] = value
    pairs[place, 0] = one
    pairs[place, 1] = two
