"""What a grouping is worth, in figures that need no truth.

Every group gets its centroid, its medoid, how closely it holds together and how far the next one is. Of the whole there are
two samples: the silhouette (Rousseeuw 1987), for which a face's mean cosine distance to a group is 1 less its product with the
group's mean vector, so that it is the true silhouette and no simplified one; and DBCV (Moulavi et al. 2014) by the hdbscan
library.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from hdbscan.validity import validity_index

from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.request import GroupingSizes
from services.clustering.grouping.vectors import SLICE_ROWS, AnyVectors, BetweenBlocks, Ints, split_rows, take_rows
from shared.faces.centroid import compute_centroids
from shared.faces.embeddings import Vectors

SILHOUETTE_FACES: Final = 2000
VALIDITY_PAIRS: Final = 24
"""Groups in the sample of DBCV, each with the one nearest to it."""

VALIDITY_GROUP_FACES: Final = 100
"""Larger groups are thinned to so many faces there; distances within one are held as a square."""

_SAMPLE_SEED: Final = 0

Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """``centroids`` (K, D) float32 unit rows, ``confidence`` (N,) cosine of a face to its own, 0 for noise; ``medoids`` (K,)
    rows; ``cohesions`` (K,) mean confidence; ``nearest`` (K,) the other group with the nearest centroid, -1 without one;
    ``separations`` (K,) cohesion less the cosine to it, NaN without one.
    """

    centroids: Vectors
    confidence: Floats
    medoids: Longs
    cohesions: Floats
    nearest: Longs
    separations: Floats


def measure_groups(
    vectors: AnyVectors, labels: Ints, sizes: GroupingSizes, between_blocks: BetweenBlocks
) -> GroupFigures:
    """Measure every group of ``labels`` (N,; 0..K-1, -1 noise)."""
    groups = int(labels.max(initial=-1)) + 1
    centroids, confidence = gather_centroids(vectors, labels, groups, between_blocks)
    medoids, cohesions = find_medoids(labels, confidence, groups)
    nearest, cosines = find_nearest_centroids(centroids, sizes, between_blocks)
    separations = np.where(nearest >= 0, cohesions - cosines, np.float32(np.nan)).astype(np.float32)
    return GroupFigures(centroids, confidence, medoids, cohesions, nearest, separations)


def gather_centroids(
    vectors: AnyVectors, labels: Ints, groups: int, between_blocks: BetweenBlocks
) -> tuple[Vectors, Floats]:
    """The centroid (K, D) of every group, as :func:`compute_centroids` makes it, and the cosine (N,) of each face to its own,
    clipped to 0..1; 0 for noise.

    A few groups at a time; the largest group's vectors are held as float32.
    """
    centroids = np.empty((groups, vectors.shape[1]), dtype=np.float32)
    confidence = np.zeros(len(labels), dtype=np.float32)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(groups + 1))
    first = 0
    while first < groups:
        between_blocks(first, groups)
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + SLICE_ROWS, side="right")) - 1)
        rows = order[starts[first] : starts[end]]
        own, faces = labels[rows] - first, take_rows(vectors, rows)
        centroids[first:end] = compute_centroids(faces, own, end - first).vectors
        confidence[rows] = np.einsum("nd,nd->n", faces, centroids[first:end][own])
        first = end
    return centroids, np.clip(confidence, 0.0, 1.0)


def find_medoids(labels: Ints, confidence: Floats, groups: int) -> tuple[Longs, Floats]:
    """The row (K,) nearest to each group's centroid, of equals the first, and the mean confidence (K,) of each group."""
    rows = np.flatnonzero(labels >= 0)
    order = rows[np.lexsort((-confidence[rows], labels[rows]))]
    medoids = order[np.searchsorted(labels[order], np.arange(groups))].astype(np.int64)
    sizes = np.bincount(labels[rows], minlength=groups)
    sums = np.bincount(labels[rows], weights=confidence[rows], minlength=groups)
    return medoids, (sums / np.maximum(sizes, 1)).astype(np.float32)


def find_nearest_centroids(
    centroids: Vectors, sizes: GroupingSizes, between_blocks: BetweenBlocks
) -> tuple[Longs, Floats]:
    """The other centroid (K,) nearest to each, -1 without one, and its cosine (K,)."""
    if len(centroids) < 2:
        return np.full(len(centroids), -1, dtype=np.int64), np.full(len(centroids), -1.0, dtype=np.float32)
    graph, _ = build_neighbour_graph(centroids, k=1, floor=-1.0, sizes=sizes, between_blocks=between_blocks)
    return graph.neighbours[:, 0].astype(np.int64), graph.similarities[:, 0]


def measure_silhouette(vectors: AnyVectors, labels: Ints, sums: Vectors) -> float:
    """Mean silhouette by cosine distance of up to 2000 grouped faces against all groups; 0 with fewer than two groups.

    ``sums`` (K, D) of each group's vectors. Of a face v of group A with n faces: a = (n - v . sum_A) / (n - 1), b = the least
    1 - v . sum_G / n_G over the others, and (b - a) / max(a, b); 0 in a group of one.
    """
    rows = _draw_rows(np.flatnonzero(labels >= 0), SILHOUETTE_FACES)
    if len(sums) < 2 or len(rows) == 0:
        return 0.0
    sizes = np.bincount(labels[labels >= 0], minlength=len(sums)).astype(np.float32)
    faces, own = take_rows(vectors, rows), labels[rows]
    within = (sizes[own] - np.einsum("nd,nd->n", faces, sums[own])) / np.maximum(sizes[own] - 1, 1)
    without = np.full(len(rows), np.inf, dtype=np.float32)
    for part in split_rows(len(sums)):
        distances = 1.0 - (faces @ sums[part].T) / sizes[part]
        here = np.flatnonzero((own >= part.start) & (own < part.stop))
        distances[here, own[here] - part.start] = np.inf
        np.minimum(without, distances.min(axis=1), out=without)
    scores = (without - within) / np.maximum(np.maximum(within, without), np.float32(1e-6))
    return float(np.where(sizes[own] > 1, scores, 0.0).mean())


def measure_validity(vectors: AnyVectors, labels: Ints, nearest: Longs) -> float:
    """DBCV by the hdbscan library (euclidean) of up to 24 groups drawn at random, each with its ``nearest`` (K,); 0 with fewer
    than two groups. Large groups are thinned. Noise is left out, since of a sample its share would mean nothing, and so are
    groups of one, which have no density.
    """
    sizes = np.bincount(labels[labels >= 0], minlength=len(nearest))
    drawn = _draw_rows(np.flatnonzero(sizes > 1), VALIDITY_PAIRS)
    groups = np.unique(np.concatenate([drawn, nearest[drawn]]))
    groups = groups[(groups >= 0) & (sizes[groups] > 1)]
    if len(groups) < 2:
        return 0.0
    chosen = [_draw_rows(np.flatnonzero(labels == group), VALIDITY_GROUP_FACES) for group in groups]
    rows = np.concatenate(chosen)
    names = np.repeat(np.arange(len(groups)), [len(part) for part in chosen])
    # 1 / distance to the power of the dimension overflows for copies of one picture; their density is then infinite, as it is.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        found = float(validity_index(take_rows(vectors, rows).astype(np.float64), names))
    return found if np.isfinite(found) else 0.0


def measure_peak_bytes() -> int:
    """The most memory this process has ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _draw_rows(rows: Longs, most: int) -> Longs:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(_SAMPLE_SEED).choice(rows, most, replace=False))
