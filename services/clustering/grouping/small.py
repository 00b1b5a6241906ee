"""First groups of a small set, by the reference libraries: O(N^2) time, so only up to ``small_set`` faces.

The hdbscan library sees all pairs and finds slightly better groups than the graph where there are few faces.
It knows no similarity below which faces have nothing to do with each other, though, and never says "all of
these are one". So its groups lose the members that are further from their centroid than a face may be
attached from, and what it calls noise gets a second look by the forest on the graph, whose roots may be
groups.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hdbscan import HDBSCAN
from sklearn.cluster import DBSCAN, AgglomerativeClustering

from services.clustering.grouping.forest import NOISE, compact_labels, form_groups
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.sums import sum_groups
from services.clustering.grouping.thresholds import Thresholds
from services.clustering.grouping.vectors import AnyVectors, take_rows

Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


def form_small_hdbscan(
    vectors: AnyVectors,
    graph: NeighbourGraph,
    seeds: Flags,
    thresholds: Thresholds,
    *,
    min_cluster_size: int,
    min_samples: int,
) -> Ints:
    """Labels (N,) of the seed rows of unit vectors (N, D) by the hdbscan library on euclidean distance,
    excess of mass.
    """
    labels = np.full(len(vectors), NOISE, dtype=np.int32)
    rows = np.flatnonzero(seeds)
    if len(rows) > max(min_cluster_size, min_samples):
        model = HDBSCAN(min_cluster_size=min_cluster_size, min_samples=min_samples, metric="euclidean")
        labels[rows] = model.fit_predict(take_rows(vectors, rows).astype(np.float64))
    labels = trim_groups(vectors, labels, least=thresholds.attach, min_cluster_size=min_cluster_size)
    second_look = form_groups(
        graph,
        seeds & (labels < 0),
        link_floor=thresholds.link_floor,
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
    )
    return np.where(second_look >= 0, second_look + labels.max(initial=NOISE) + 1, labels).astype(np.int32)


def form_small_dbscan(vectors: AnyVectors, seeds: Flags, *, radius: float, min_samples: int) -> Ints:
    """Labels (N,) by scikit-learn's DBSCAN; ``radius`` is the cosine within which faces are neighbours."""
    labels = np.full(len(vectors), NOISE, dtype=np.int32)
    if seeds.any():
        chord = float(np.sqrt(2.0 - 2.0 * radius))
        labels[seeds] = DBSCAN(eps=chord, min_samples=min_samples, metric="euclidean").fit_predict(
            take_rows(vectors, np.flatnonzero(seeds))
        )
    return labels


def form_small_agglomerative(vectors: AnyVectors, seeds: Flags, *, threshold: float, min_cluster_size: int) -> Ints:
    """Labels (N,) by scikit-learn's average linkage: groups whose mean pair cosine is above ``threshold``."""
    labels = np.full(len(vectors), NOISE, dtype=np.int32)
    if int(seeds.sum()) >= 2:
        model = AgglomerativeClustering(
            n_clusters=None, metric="cosine", linkage="average", distance_threshold=1.0 - threshold
        )
        labels[seeds] = model.fit_predict(take_rows(vectors, np.flatnonzero(seeds)))
    return drop_small_groups(labels, min_cluster_size)


def trim_groups(vectors: AnyVectors, labels: Ints, *, least: float, min_cluster_size: int) -> Ints:
    """Make noise of members whose cosine to their group's centroid is not above ``least``, and of groups left
    too small.
    """
    grouped = np.flatnonzero(labels >= 0)
    if len(grouped) == 0:
        return labels
    centroids = sum_groups(vectors, labels, _never_ends)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    cosines = np.einsum("nd,nd->n", take_rows(vectors, grouped), centroids[labels[grouped]])
    result = labels.copy()
    result[grouped[cosines <= least]] = NOISE
    return drop_small_groups(result, min_cluster_size)


def _never_ends(done: int, total: int) -> None:
    """Few faces are over before anybody could want to stop."""


def drop_small_groups(labels: Ints, min_cluster_size: int) -> Ints:
    """Make noise of groups below the size, and renumber the rest."""
    sizes = np.bincount(labels[labels >= 0], minlength=int(labels.max(initial=NOISE)) + 1)
    keep = labels >= 0
    keep[keep] = sizes[labels[keep]] >= min_cluster_size
    return compact_labels(np.where(keep, labels, NOISE))
