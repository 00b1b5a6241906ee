"""HDBSCAN on a neighbour graph, in O(E log E).

Campello, Moulavi and Sander (2013), with the graph's edges in place of all pairs: core distance at
``min_samples``, mutual reachability, minimum spanning forest (Kruskal), condensed tree, excess of mass. On a
complete graph this is HDBSCAN; on a k-NN graph cut at a similarity it is a forest, one tree per component,
and each root is born at the cut.

Distances are chords, sqrt(2 * (1 - cosine)): densities are then those of euclidean space, and groups split
less than with 1 - cosine. Everything up to the densities works on cosines, which order edges the same way (a
mutual reachability as a cosine is the least of the edge's and both cores').
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.disjoint_sets import find_root
from services.clustering.grouping.graph import NeighbourGraph

NOISE: Final = -1
SHORTEST_CHORD: Final = 1e-3
"""Copies of one picture are no denser than this, or they alone would decide every stability."""

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def form_groups(
    graph: NeighbourGraph,
    seeds: Flags,
    *,
    link_floor: float,
    min_cluster_size: int,
    min_samples: int,
    roots_are_groups: bool = True,
) -> Ints:
    """Group the rows flagged in ``seeds`` (N,) over edges above ``link_floor``; (N,) int32 labels 0..K-1, -1 for noise.

    A row with fewer than ``min_samples`` seed neighbours has its core distance at the floor instead of
    nowhere, so the edge of a photo session is not noise for want of neighbours.
    """
    count = len(seeds)
    floor = np.float32(link_floor)
    cores = find_cores(graph.neighbours, graph.similarities, seeds, min_samples, floor)
    ends, cosines = list_edges(graph, seeds, floor)
    reach, ranks = rank_edges(ends, cosines, cores)
    del cosines
    order = np.argsort(ranks)
    del ranks
    left, right, joined, sizes = span_forest(count, ends, reach, order)
    chords = np.sqrt(np.maximum(2.0 - 2.0 * joined.astype(np.float64), SHORTEST_CHORD**2))
    cut = max(float(np.sqrt(2.0 - 2.0 * min(link_floor, 1.0))), SHORTEST_CHORD)
    parents, stabilities, owners = condense_forest(count, left, right, chords, sizes, min_cluster_size, cut)
    chosen = select_clusters(parents, stabilities, roots_are_groups)
    labels = np.where(owners >= 0, chosen[owners], NOISE) if len(chosen) else np.full(count, NOISE)
    return compact_labels(labels)


def list_edges(graph: NeighbourGraph, seeds: Flags, floor: np.float32) -> tuple[Ints, Floats]:
    """Ends (E, 2) and cosines (E,) of the distinct undirected edges between seeds above ``floor``."""
    # Room for the most there can be; what is not filled never becomes memory.
    room = graph.neighbours.size
    ends, cosines = np.empty((room, 2), dtype=np.int32), np.empty(room, dtype=np.float32)
    found = collect_edges(graph.neighbours, graph.similarities, seeds, floor, ends, cosines)
    return ends[:found], cosines[:found]


def compact_labels(labels: npt.NDArray[np.integer]) -> Ints:
    """Renumber the labels that occur to 0..K-1 in their order, leaving -1."""
    result = np.full(len(labels), NOISE, dtype=np.int32)
    grouped = labels >= 0
    result[grouped] = np.unique(labels[grouped], return_inverse=True)[1]
    return result


@compiled
def find_cores(neighbours: Ints, similarities: Floats, seeds: Flags, min_samples: int, floor: np.float32) -> Floats:
    """The cosine to the ``min_samples``-th seed neighbour of each row, at least ``floor``."""
    count, k = neighbours.shape
    cores = np.full(count, floor, np.float32)
    for row in range(count):
        seen = 0
        for place in range(k):
            other = neighbours[row, place]
            if other < 0:
                break
            if seeds[other]:
                seen += 1
                if seen == min_samples:
                    cores[row] = max(floor, similarities[row, place])
                    break
    return cores


@compiled
def holds_neighbour(neighbours: Ints, row: int, other: int) -> bool:
    """Whether ``other`` is in the list of ``row``."""
    for place in range(neighbours.shape[1]):
        if neighbours[row, place] == other:
            return True
        if neighbours[row, place] < 0:
            return False
    return False


@compiled
def collect_edges(
    neighbours: Ints, similarities: Floats, seeds: Flags, floor: np.float32, ends: Ints, cosines: Floats
) -> int:
    """Fill ``ends`` (E, 2) and ``cosines`` (E,) with the distinct undirected edges between seeds above the floor, and count
    them.
    """
    found = 0
    for row in range(neighbours.shape[0]):
        if not seeds[row]:
            continue
        for place in range(neighbours.shape[1]):
            other = neighbours[row, place]
            if other < 0 or similarities[row, place] <= floor:
                break
            if seeds[other] and (row < other or not holds_neighbour(neighbours, other, row)):
                ends[found, 0] = row
                ends[found, 1] = other
                cosines[found] = similarities[row, place]
                found += 1
    return found


@compiled
def rank_edges(ends: Ints, cosines: Floats, cores: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The mutual reachability (E,) of each edge as a cosine, and numbers (E,) that ascend from the nearest edge to the
    farthest. Many tie at a core distance; the cosine behind them decides, so that the order of rows does not.

    Both cosines make one whole number, since floats order as their bits do, negative ones the other way round: sorting
    those takes an eighth of the time of a sort by two keys.
    """
    edges = len(ends)
    reach = np.empty(edges, np.float32)
    for edge in range(edges):
        reach[edge] = min(cosines[edge], min(cores[ends[edge, 0]], cores[ends[edge, 1]]))
    ranks = np.empty(edges, np.int64)
    reach_bits = reach.view(np.int32)
    cosine_bits = cosines.view(np.int32)
    flipped = np.int64(0x7FFFFFFF)
    for edge in range(edges):
        major = np.int64(reach_bits[edge])
        minor = np.int64(cosine_bits[edge])
        if major < 0:
            major = np.int64(-1) - (major & flipped)
        if minor < 0:
            minor = np.int64(-1) - (minor & flipped)
        ranks[edge] = -(major << np.int64(32)) - minor
    return reach, ranks


@compiled
def span_forest(count: int, ends: Ints, reach: Floats, order: npt.NDArray[np.int64]) -> tuple[Ints, Ints, Floats, Ints]:
    """Kruskal. Merge m makes node ``count + m`` of ``left[m]`` and ``right[m]`` at cosine ``joined[m]``;
    sizes of all nodes.
    """
    sets = np.arange(count).astype(np.int32)
    members = np.ones(count, np.int32)
    node_of = np.arange(count).astype(np.int32)
    left = np.empty(count, np.int32)
    right = np.empty(count, np.int32)
    joined = np.empty(count, np.float32)
    sizes = np.ones(2 * count, np.int32)
    merges = 0
    for edge in order:
        one = find_root(sets, ends[edge, 0])
        two = find_root(sets, ends[edge, 1])
        if one == two:
            continue
        left[merges] = node_of[one]
        right[merges] = node_of[two]
        joined[merges] = reach[edge]
        sizes[count + merges] = members[one] + members[two]
        if members[one] < members[two]:
            one, two = two, one
        sets[two] = one
        members[one] += members[two]
        node_of[one] = count + merges
        merges += 1
    return left[:merges], right[:merges], joined[:merges], sizes[: count + merges]


@compiled
def condense_forest(
    count: int,
    left: Ints,
    right: Ints,
    chords: npt.NDArray[np.float64],
    sizes: Ints,
    min_cluster_size: int,
    cut: float,
) -> tuple[Ints, npt.NDArray[np.float64], Ints]:
    """Condensed tree: ``parents`` (C,) with a parent before its children and -1 for roots, ``stabilities``
    (C,), and ``owners`` (N,), the condensed cluster each row fell out of (-1: its component is too small).

    Density is 1 / chord. A split into two large parts ends a cluster; small parts fall out of it one density
    at a time.
    """
    merges = len(left)
    is_root = np.ones(count + merges, np.bool_)
    for merge in range(merges):
        is_root[left[merge]] = False
        is_root[right[merge]] = False
    room = 2 * (count // min_cluster_size) + 4
    parents = np.empty(room, np.int32)
    births = np.empty(room, np.float64)
    stabilities = np.zeros(room, np.float64)
    owners = np.full(count, -1, np.int32)
    todo_node = np.empty(count + merges + 1, np.int32)
    todo_cluster = np.empty(count + merges + 1, np.int32)
    fallen = np.empty(count + merges + 1, np.int32)
    clusters = 0
    for root in range(count + merges - 1, count - 1, -1):
        if not is_root[root] or sizes[root] < min_cluster_size:
            continue
        parents[clusters] = -1
        births[clusters] = 1.0 / cut
        todo_node[0] = root
        todo_cluster[0] = clusters
        clusters += 1
        todo = 1
        while todo > 0:
            todo -= 1
            node = todo_node[todo]
            cluster = todo_cluster[todo]
            merge = node - count
            density = max(1.0 / chords[merge], births[cluster])
            lived = density - births[cluster]
            splits = sizes[left[merge]] >= min_cluster_size and sizes[right[merge]] >= min_cluster_size
            if splits:
                stabilities[cluster] += lived * sizes[node]
            for side in range(2):
                child = left[merge] if side == 0 else right[merge]
                if splits:
                    parents[clusters] = cluster
                    births[clusters] = density
                    todo_node[todo] = child
                    todo_cluster[todo] = clusters
                    clusters += 1
                    todo += 1
                elif sizes[child] >= min_cluster_size:
                    todo_node[todo] = child
                    todo_cluster[todo] = cluster
                    todo += 1
                else:
                    stabilities[cluster] += lived * sizes[child]
                    fallen[0] = child
                    depth = 1
                    while depth > 0:
                        depth -= 1
                        part = fallen[depth]
                        if part < count:
                            owners[part] = cluster
                        else:
                            fallen[depth] = left[part - count]
                            fallen[depth + 1] = right[part - count]
                            depth += 2
    return parents[:clusters], stabilities[:clusters], owners


@compiled
def select_clusters(parents: Ints, stabilities: npt.NDArray[np.float64], roots_are_groups: bool) -> Ints:
    """Excess of mass: of each branch, the cluster or its descendants, whichever are more stable together.
    (C,) the selected cluster each condensed cluster belongs to, -1 where it lies above the selected ones.
    """
    clusters = len(parents)
    best = stabilities.copy()
    below = np.zeros(clusters, np.float64)
    selected = np.zeros(clusters, np.bool_)
    for cluster in range(clusters - 1, -1, -1):
        if below[cluster] > best[cluster] or (parents[cluster] < 0 and not roots_are_groups):
            best[cluster] = below[cluster]
        else:
            selected[cluster] = True
        if parents[cluster] >= 0:
            below[parents[cluster]] += best[cluster]
    chosen = np.full(clusters, -1, np.int32)
    for cluster in range(clusters):
        parent = parents[cluster]
        if parent >= 0 and chosen[parent] >= 0:
            chosen[cluster] = chosen[parent]
        elif selected[cluster]:
            chosen[cluster] = cluster
    return chosen
