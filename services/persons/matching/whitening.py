"""Where a training starts: the space in which the faces of one person scatter alike in every direction.

With S the covariance of faces around their own person's mean and c the mean of its eigenvalues, the start is
``(S + a c I)^(-1/2)``: directions in which one person varies (pose, light, age) count less. It is the within-class half of
Fisher's discriminant, shrunk towards the identity as in Ledoit and Wolf (2004), so that few faces cannot invent directions:
the larger ``a``, the nearer to the model's own space, and ``a`` = None is that space itself. The axes are those of most
variance afterwards, so that the first d of them are the best d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.persons.matching.request import People
from shared.faces.embeddings import Vectors

SHRINKAGES: Final = (None, 3.0, 1.0, 0.3, 0.1)
_SMALLEST: Final = 1e-12

_Exact = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scatter:
    """Eigenvalues (D,) and eigenvectors (D, D) of the covariance around persons' means, and ``moment`` (D, D) of all faces."""

    values: _Exact
    directions: _Exact
    moment: _Exact


def measure_scatter(vectors: Vectors, people: People) -> Scatter:
    """Of unit vectors (N, D) of ``people`` (N,), with more faces than persons."""
    index = np.unique(people, return_inverse=True)[1]
    sizes = np.bincount(index)
    order = np.argsort(index, kind="stable")
    sums = np.add.reduceat(vectors[order], np.concatenate([[0], np.cumsum(sizes)[:-1]]), axis=0)
    within = vectors - (sums / sizes[:, None]).astype(np.float32)[index]
    covariance = (within.T @ within).astype(np.float64) / max(1, len(vectors) - len(sizes))
    values, directions = np.linalg.eigh(covariance)
    return Scatter(np.maximum(values, 0.0), directions, (vectors.T @ vectors).astype(np.float64) / len(vectors))


def make_start(scatter: Scatter, shrinkage: float | None) -> Vectors:
    """The matrix (D, D) of a start; its first d columns are the start of dimension d."""
    if shrinkage is None:
        whitening = np.eye(len(scatter.values))
    else:
        mean = max(float(scatter.values.mean()), _SMALLEST)
        whitening = scatter.directions * np.sqrt(mean / (scatter.values + shrinkage * mean))
    axes = np.linalg.eigh(whitening.T @ scatter.moment @ whitening)[1][:, ::-1]
    return np.ascontiguousarray(whitening @ axes, dtype=np.float32)
