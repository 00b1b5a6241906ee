"""Merging groups whose centroids agree: hierarchical clustering with centroid linkage over the pairs worth a look.

Pairs are those of the neighbour graph of the centroids, which costs less than all K^2 of them where there are many groups; once
few groups change, only those are held against the others. Sums are kept from step to step, so vectors are read once.

Pairs come off a heap, the most alike first. Each is compared anew with the centroids as they are by then, and
goes back if it has become less alike than the next one. Groups that share photos are not merged: two faces of
one photo are two people, so a share of common photos is a veto (a few are allowed: mirrors, collages and
wrong members exist). Nor are those of two anchors (:mod:`constraints`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.constraints import name_anchored_groups
from services.clustering.grouping.disjoint_sets import find_root
from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.request import GroupingSizes
from services.clustering.grouping.sums import sum_groups
from services.clustering.grouping.vectors import AnyVectors, BetweenBlocks, split_rows
from shared.faces.embeddings import Vectors

MAX_ROUNDS: Final = 4
CANDIDATE_SLACK: Final = 0.03
"""Pairs a little below the threshold are kept as candidates: merging takes the noise out of centroids and
lifts them.
"""

PAIRS_PER_GROUP: Final = 32
FEW_CHANGED: Final = 8
"""Up to one group in so many is held against all others by itself; with more, the graph of all groups is made anew."""

_BLOCK: Final = 1024

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups on their way: ``labels`` (N,) 0..K-1, -1 noise; ``sums`` (K, D) float32 of their vectors, which the sums of
    merged groups can be had from at once, unlike trimmed means; ``changed`` (K,) since pairs were last looked at; ``vetoed``
    (P, 2) int32 pairs that were kept apart.
    """

    labels: Ints
    sums: Vectors
    changed: Flags
    vetoed: Ints


def gather_groups(vectors: AnyVectors, labels: Ints, between_blocks: BetweenBlocks) -> Groups:
    """The groups of ``labels`` (N,; 0..K-1, -1 noise), all of them new."""
    sums = sum_groups(vectors, labels, between_blocks)
    return Groups(labels, sums, np.ones(len(sums), dtype=np.bool_), np.empty((0, 2), dtype=np.int32))


def merge_groups(
    groups: Groups,
    assets: Longs,
    anchors: Ints,
    *,
    threshold: float,
    sizes: GroupingSizes,
    between_blocks: BetweenBlocks,
) -> tuple[Groups, int]:
    """Merge groups whose centroids' cosine is above ``threshold``; also answers how many merges were made.

    ``assets`` (N,) are 0..A-1. A pair is vetoed if the photos both groups appear in are more than ``sizes.veto_share`` of
    the photos of the smaller group, or if both hold anchored faces (``anchors`` (N,), -1 free), of different anchors then.
    Repeats with the pairs of what has changed until nothing merges, at most four times. ``groups.sums`` is overwritten.
    """
    merges = 0
    asset_count = int(assets.max(initial=-1)) + 1
    for _ in range(MAX_ROUNDS):
        count = len(groups.sums)
        pairs, cosines = find_pairs(groups, threshold - CANDIDATE_SLACK, sizes, between_blocks)
        parents, made, vetoed = link_groups(
            pairs,
            cosines,
            groups.sums,
            list_members(groups.labels, count),
            assets,
            asset_count,
            name_anchored_groups(groups.labels, anchors, count),
            threshold,
            sizes.veto_share,
        )
        groups = (
            rename_groups(groups, parents, vetoed)
            if made
            else replace(groups, changed=np.zeros(count, dtype=np.bool_), vetoed=vetoed)
        )
        if made == 0:
            break
        merges += made
    return groups, merges


def rename_groups(groups: Groups, parents: Ints, vetoed: Ints) -> Groups:
    """The groups after merging into ``parents`` (K,); ``vetoed`` are pairs of those."""
    roots, places = np.unique(parents, return_inverse=True)
    names: Ints = places.astype(np.int32)
    grown = np.bincount(names) > 1
    labels = np.where(groups.labels >= 0, names[groups.labels], -1).astype(np.int32)
    return Groups(labels, groups.sums[roots], grown, names[vetoed])


def find_pairs(
    groups: Groups, least: float, sizes: GroupingSizes, between_blocks: BetweenBlocks
) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Pairs (P, 2) of groups, one of them changed, whose centroids' cosine is at least ``least``, and those that were vetoed
    before; and the cosines (P,).

    A group that has become much like many others shows the nearest of them only; the next round shows more.
    """
    count = len(groups.sums)
    units = groups.sums / np.linalg.norm(groups.sums, axis=1, keepdims=True)
    rows = np.flatnonzero(groups.changed)
    if len(rows) * FEW_CHANGED > count:
        pairs, cosines = _pair_all(units, least, sizes, between_blocks)
        of_changed = groups.changed[pairs].any(axis=1)
        pairs, cosines = pairs[of_changed], cosines[of_changed]
    else:
        pairs, cosines = _pair_changed(units, rows, least, between_blocks)
    known = groups.vetoed
    again = np.einsum("pd,pd->p", units[known[:, 0]], units[known[:, 1]])
    ends = np.sort(np.concatenate([pairs, known]), axis=1)
    _, firsts = np.unique(ends[:, 0].astype(np.int64) * count + ends[:, 1], return_index=True)
    return ends[firsts], np.concatenate([cosines, again])[firsts].astype(np.float64)


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
    anchors: Ints,
    threshold: float,
    veto_share: float,
) -> tuple[Ints, int, Ints]:
    """Merge along candidate pairs, the most alike first, of equals the one that comes first. Returns the root group of each
    group, merges made, and the distinct pairs of roots vetoed.

    ``sums`` and ``anchors`` (K,) of the groups are overwritten.
    """
    order = np.argsort(-cosines, kind="stable")
    parents, made, vetoed = link_pairs(
        pairs[order], cosines[order], sums, members[0], members[1], assets, asset_count, anchors, threshold, veto_share
    )
    vetoed = np.sort(parents[vetoed], axis=1)
    return parents, made, np.unique(vetoed[vetoed[:, 0] != vetoed[:, 1]], axis=0)


def _pair_all(
    units: Vectors, least: float, sizes: GroupingSizes, between_blocks: BetweenBlocks
) -> tuple[Ints, npt.NDArray[np.float32]]:
    k = max(1, min(PAIRS_PER_GROUP, len(units) - 1))
    graph, _ = build_neighbour_graph(units, k=k, floor=least, sizes=sizes, between_blocks=between_blocks)
    rows, places = np.nonzero(graph.neighbours >= 0)
    pairs = np.stack([rows.astype(np.int32), graph.neighbours[rows, places]], axis=1)
    return pairs, graph.similarities[rows, places]


def _pair_changed(
    units: Vectors, changed: Longs, least: float, between_blocks: BetweenBlocks
) -> tuple[Ints, npt.NDArray[np.float32]]:
    pairs: list[Ints] = [np.empty((0, 2), dtype=np.int32)]
    cosines: list[Floats] = [np.empty(0, dtype=np.float32)]
    for part in split_rows(len(changed), _BLOCK):
        between_blocks(part.start, len(changed))
        for other in split_rows(len(units), _BLOCK):
            product = units[changed[part]] @ units[other].T
            rows, columns = np.nonzero(product >= least)
            found = np.stack([changed[part][rows], columns + other.start], axis=1).astype(np.int32)
            apart = found[:, 0] != found[:, 1]
            pairs.append(found[apart])
            cosines.append(product[rows, columns][apart])
    return np.concatenate(pairs), np.concatenate(cosines)


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
    anchors: Ints,
    threshold: float,
    veto_share: float,
) -> tuple[Ints, int, Ints]:
    """The loop of :func:`link_groups`; ``pairs`` sorted from most to least alike, which already is a heap, and overwritten."""
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
    heap_pairs = pairs
    heap = cosines
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
        apart = anchors[one] >= 0 and anchors[two] >= 0 and anchors[one] != anchors[two]
        if apart or measure_shared(one, two, head, following, photos, assets, marks, stamp) > veto_share:
            vetoed[vetoes, 0] = one
            vetoed[vetoes, 1] = two
            vetoes += 1
            continue
        if counts[one] < counts[two] or (counts[one] == counts[two] and two < one):
            one, two = two, one
        parents[two] = one
        anchors[one] = max(anchors[one], anchors[two])
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
