"""The modes of a person: the few clumps their faces fall into (child and adult, with and without a beard).

Spherical k-means (Dhillon and Modha 2001) for k = 2..max_modes with farthest-first starts, so that nothing is
random; the k with the best simplified silhouette (own centroid against the nearest other one, Hruschka et al.
2004) wins, if the clumps are worth telling apart at all. One mode is no news beside the person's centroid and
is reported as none.

Of somebody with very many faces the modes are looked for among 2,000 of them, spread evenly over the rows; then every
face goes to the nearest, and the centroids are of all. So the search costs at most what it costs for 2,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.faces.centroid import MEAN_ALGORITHM, compute_centroid, compute_centroids
from shared.faces.embeddings import Vectors

ALGORITHM: Final = f"{MEAN_ALGORITHM}+modes-2"
"""Of all that is computed of a person; goes into the hash of the members, so that with it everything stored is stale."""

LOOKED_AT: Final = 2000
"""At most so many faces are searched for modes."""

MAX_ROUNDS: Final = 50
_CHUNK_ROWS: Final = 8192
_MIN_LENGTH: Final = 1e-6


@dataclass(frozen=True, slots=True)
class ModeRules:
    """When a person has modes. ``max_cosine`` is of two mode centroids: more alike than that is one mode."""

    min_faces: int = 12
    min_faces_per_mode: int = 4
    max_modes: int = 8
    min_silhouette: float = 0.25
    max_cosine: float = 0.85


@dataclass(frozen=True, slots=True)
class Modes:
    """``labels`` (N,) the mode 0..K-1 of each face, largest mode first; ``vectors`` (K, D) their centroids;
    the silhouette -1..1, of the faces that were searched.
    """

    labels: npt.NDArray[np.int64]
    vectors: Vectors
    silhouette: float


def find_modes(vectors: Vectors, rules: ModeRules | None = None) -> Modes | None:
    """Split a person's unit vectors (N, D) into modes, or ``None`` where they are too few or make one clump.

    Deterministic for one order of rows. O(max_modes^2 * min(N, 2000) * D) per round, at most 50 rounds, and once
    O(max_modes * N * D). Extra memory: a copy of the rows that are searched, and a slice of all.
    """
    rules = rules or ModeRules()
    if len(vectors) <= LOOKED_AT:
        return _search_modes(vectors, rules)
    found = _search_modes(vectors[np.linspace(0, len(vectors) - 1, LOOKED_AT).astype(np.int64)], rules)
    if found is None:
        return None
    slices = (vectors[start : start + _CHUNK_ROWS] for start in range(0, len(vectors), _CHUNK_ROWS))
    labels = np.concatenate([np.argmax(some @ found.vectors.T, axis=1) for some in slices])
    labels, sizes = _order_by_size(labels, len(found.vectors))
    if sizes.min() < rules.min_faces_per_mode:
        return None
    return Modes(labels, compute_centroids(vectors, labels, len(sizes)).vectors, found.silhouette)


def _search_modes(vectors: Vectors, rules: ModeRules) -> Modes | None:
    if len(vectors) < rules.min_faces:
        return None
    best: Modes | None = None
    seeds = _pick_farthest(vectors, rules.max_modes)
    for count in range(2, min(rules.max_modes, len(seeds)) + 1):
        labels, sizes = _order_by_size(_cluster(vectors, vectors[seeds[:count]]), count)
        if sizes.min() < rules.min_faces_per_mode:
            continue
        centroids = compute_centroids(vectors, labels, count).vectors
        between = centroids @ centroids.T
        silhouette = _silhouette(vectors, centroids, labels)
        apart = between[~np.eye(count, dtype=bool)].max() <= rules.max_cosine
        if apart and silhouette >= rules.min_silhouette and (best is None or silhouette > best.silhouette):
            best = Modes(labels=labels, vectors=centroids, silhouette=silhouette)
    return best


def _order_by_size(labels: npt.NDArray[np.integer], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The same modes numbered from the largest on, and their sizes."""
    sizes = np.bincount(labels, minlength=count)
    ranks = np.argsort(-sizes, kind="stable")
    return np.argsort(ranks)[labels].astype(np.int64), sizes[ranks].astype(np.int64)


def _pick_farthest(vectors: Vectors, count: int) -> list[int]:
    """Rows to start from: the one nearest to the centroid, then the one worst explained by those before it.

    The worst explained would be an outlier, which makes a poor start; the row at the 98th percentile of
    distance is taken.
    """
    chosen = [int(np.argmax(vectors @ compute_centroid(vectors)))]
    nearest = vectors @ vectors[chosen[0]]
    position = int(len(vectors) * 0.02)
    while len(chosen) < min(count, len(vectors)):
        chosen.append(int(np.argsort(nearest, kind="stable")[position]))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return chosen


def _cluster(vectors: Vectors, starts: Vectors) -> npt.NDArray[np.int64]:
    count = len(starts)
    centroids = starts
    labels = np.full(len(vectors), -1, dtype=np.int64)
    for _ in range(MAX_ROUNDS):
        found = np.argmax(vectors @ centroids.T, axis=1).astype(np.int64)
        if np.array_equal(found, labels):
            break
        labels = found
        # Plain means: to trim in every round would cost ten times as much and move nobody who matters.
        sums = np.eye(count, dtype=np.float32)[labels].T @ vectors
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # One that has lost all its faces, or whose faces cancel out, stays where it was.
        centroids = np.where(lengths > _MIN_LENGTH, sums / np.maximum(lengths, _MIN_LENGTH), centroids)
    return labels


def _silhouette(vectors: Vectors, centroids: Vectors, labels: npt.NDArray[np.int64]) -> float:
    distances = np.clip(1.0 - vectors @ centroids.T, 0.0, None)
    rows = np.arange(len(vectors))
    own = distances[rows, labels].copy()
    distances[rows, labels] = np.inf
    other = distances.min(axis=1)
    return float(((other - own) / np.maximum(np.maximum(own, other), 1e-12)).mean())
