"""The centroid: one robust mean of unit vectors, for persons and clusters alike.

Mean of the vectors; where there are enough of them, the share that agrees least with that mean (lowest
cosine) is left out; mean of the rest; unit length. Few faces are never trimmed, because each may be the only
one of its age or light.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.faces.embeddings import InvalidEmbedding, Vectors, normalise

MEAN_ALGORITHM: Final = "trimmed-mean-1"
"""Changes when the formula does; what is stored carries it (:data:`shared.faces.modes.ALGORITHM`)."""

TRIM_FROM: Final = 50
TRIM_SHARE: Final = 0.05
TRIM_MORE_ABOVE: Final = 300
TRIM_MORE_SHARE: Final = 0.10

_CHUNK_ROWS: Final = 2048


@dataclass(frozen=True, slots=True)
class Centroids:
    """Centroids of many groups: ``vectors`` (K, D) float32 unit rows, ``sizes`` (K,) faces per group before
    trimming.
    """

    vectors: Vectors
    sizes: npt.NDArray[np.int64]


def count_trimmed(size: int) -> int:
    """How many of ``size`` faces are left out: none below 50, 5 % to 300, 10 % above; rounded down."""
    if size < TRIM_FROM:
        return 0
    share = TRIM_SHARE if size <= TRIM_MORE_ABOVE else TRIM_MORE_SHARE
    return int(size * share + 1e-9)


def compute_centroid(vectors: Vectors) -> Vectors:
    """The centroid (D,) of unit vectors (N, D), N >= 1.

    Raises :class:`InvalidEmbedding` if there are no vectors or they cancel out.
    """
    if vectors.ndim != 2 or len(vectors) == 0:
        raise InvalidEmbedding("a centroid needs at least one embedding")
    centroids = compute_centroids(vectors, np.zeros(len(vectors), dtype=np.int64), 1)
    return np.ascontiguousarray(centroids.vectors[0])


def compute_centroids(vectors: Vectors, labels: npt.NDArray[np.integer], groups: int) -> Centroids:
    """The centroid of every group at once, equal to :func:`compute_centroid` of each.

    ``labels`` (N,) names the group 0..groups-1 of each row of ``vectors`` (N, D); -1 belongs to none. Extra
    memory is one slice of rows and the sums, groups * D * 8 bytes. Raises :class:`InvalidEmbedding` for an
    empty group.
    """
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    sizes = np.bincount(labels[order], minlength=groups).astype(np.int64)
    if len(sizes) != groups or (sizes == 0).any():
        raise InvalidEmbedding("every group of 0..groups-1 needs at least one embedding")
    sums = _sum_groups(vectors, order, labels, groups)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for group in np.flatnonzero(sizes >= TRIM_FROM):
        rows = order[starts[group] : starts[group + 1]]
        mean = normalise(sums[group : group + 1])[0]
        agreement = np.concatenate([vectors[some] @ mean for some in _slices(rows)])
        # Of equals the first rows go, so that the same rows in the same order always give the same centroid.
        left_out = np.argsort(agreement, kind="stable")[: count_trimmed(len(rows))]
        for some in _slices(rows[left_out]):
            sums[group] -= vectors[some].sum(axis=0, dtype=np.float64)
    return Centroids(vectors=normalise(sums), sizes=sizes)


def _sum_groups(
    vectors: Vectors, order: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], groups: int
) -> npt.NDArray[np.float64]:
    sums = np.zeros((groups, vectors.shape[1]), dtype=np.float64)
    for rows in _slices(order):
        names = labels[rows]
        firsts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
        sums[names[firsts]] += np.add.reduceat(vectors[rows], firsts, axis=0, dtype=np.float64)
    return sums


def _slices(rows: npt.NDArray[np.integer]) -> Iterator[npt.NDArray[np.integer]]:
    for start in range(0, len(rows), _CHUNK_ROWS):
        yield rows[start : start + _CHUNK_ROWS]


def hash_members(members: Iterable[tuple[str, int]]) -> str:
    """SHA-256 (hex) over the sorted (face id, version) pairs: equal hash, same members, so the centroid is not stale.

    The version is that of whatever makes the face count, its assignment for a person's centroid; an order of
    rows or a repeated pair changes nothing.
    """
    digest = hashlib.sha256()
    for face_id, version in sorted(set(members)):
        digest.update(f"{face_id}:{version}\n".encode())
    return digest.hexdigest()
