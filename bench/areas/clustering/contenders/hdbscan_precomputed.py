"""hdbscan on the matrix of all cosine distances: the service that Kith replaces did it so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hdbscan import HDBSCAN
from sklearn.metrics.pairwise import cosine_distances


def warm_up(vectors: npt.NDArray[np.floating]) -> None:
    """Nothing but imports, which have happened, and first pages."""
    group(vectors)


def group(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.integer]:
    """Labels (N,); three matrices of N x N float64 at its peak."""
    distances = cosine_distances(vectors.astype(np.float64))
    labels: npt.NDArray[np.integer] = HDBSCAN(metric="precomputed", min_cluster_size=3, min_samples=3).fit_predict(
        distances
    )
    return labels
