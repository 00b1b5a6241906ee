"""DBSCAN and agglomerative clustering over the neighbour graph, for sets too large for scikit-learn's O(N^2) versions.

Limits. DBSCAN: a face with more than k neighbours within the radius links only the nearest k; whether it is a
core face is exact as long as ``min_samples`` <= k. Agglomerative: centroid linkage instead of average linkage
(an average over pairs would need the pairs), and only groups that hold two faces linked in the graph may
merge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.constraints import FREE
from services.clustering.grouping.disjoint_sets import find_root
from services.clustering.grouping.forest import NOISE, compact_labels, find_cores, list_edges
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.merge import link_groups, list_members
from services.clustering.grouping.small import drop_small_groups
from services.clustering.grouping.vectors import AnyVectors, take_rows

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def form_dbscan(graph: NeighbourGraph, seeds: Flags, *, radius: float, min_samples: int) -> Ints:
    """Labels (N,): components of core faces (``min_samples`` seeds within cosine ``radius``, itself
    included), and the faces within the radius of one, which go to the nearest.
    """
    floor = np.float32(radius)
    if min_samples <= 1:
        cores = np.where(seeds, np.float32(2.0), floor).astype(np.float32)
    else:
        cores = find_cores(graph.neighbours, graph.similarities, seeds, min_samples - 1, floor)
    dense = seeds & (cores > floor)
    ends, _ = list_edges(graph, dense, floor)
    return compact_labels(label_components(graph.neighbours, graph.similarities, seeds, dense, ends, floor))


def form_agglomerative(
    vectors: AnyVectors,
    graph: NeighbourGraph,
    seeds: Flags,
    assets: Longs,
    *,
    threshold: float,
    min_cluster_size: int,
    veto_share: float,
) -> Ints:
    """Labels (N,): every seed starts alone; groups merge, the most alike first, while centroids are above
    cosine ``threshold``.
    """
    rows = np.flatnonzero(seeds)
    labels = np.full(len(seeds), NOISE, dtype=np.int32)
    labels[rows] = np.arange(len(rows), dtype=np.int32)
    ends, cosines = list_edges(graph, seeds, np.float32(threshold))
    parents, _, _ = link_groups(
        labels[ends],
        cosines.astype(np.float64),
        take_rows(vectors, rows),
        list_members(labels, len(rows)),
        assets,
        int(assets.max(initial=-1)) + 1,
        np.full(len(rows), FREE, dtype=np.int32),
        threshold,
        veto_share,
    )
    labels[rows] = parents
    return drop_small_groups(labels, min_cluster_size)


@compiled
def label_components(
    neighbours: Ints, similarities: Floats, seeds: Flags, dense: Flags, ends: Ints, floor: np.float32
) -> Ints:
    """The component of each core row, named by its smallest row; border seeds take that of their nearest core
    neighbour.
    """
    count = len(seeds)
    parents = np.arange(count).astype(np.int32)
    for edge in range(len(ends)):
        one = find_root(parents, ends[edge, 0])
        two = find_root(parents, ends[edge, 1])
        if one != two:
            parents[max(one, two)] = min(one, two)
    labels = np.full(count, -1, np.int32)
    for row in range(count):
        if dense[row]:
            labels[row] = find_root(parents, row)
        elif seeds[row]:
            for place in range(neighbours.shape[1]):
                other = neighbours[row, place]
                if other < 0 or similarities[row, place] <= floor:
                    break
                if dense[other]:
                    labels[row] = find_root(parents, other)
                    break
    return labels
