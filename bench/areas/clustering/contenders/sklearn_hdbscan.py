"""scikit-learn's HDBSCAN by all pairs: its trees find the same among 512 numbers in fifty times the seconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import HDBSCAN


def warm_up(vectors: npt.NDArray[np.floating]) -> None:
    """Nothing but imports, which have happened, and first pages."""
    group(vectors)


def group(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.integer]:
    """Labels (N,) by euclidean distance of unit vectors."""
    model = HDBSCAN(min_cluster_size=3, min_samples=3, metric="euclidean", algorithm="brute", copy=True)
    labels: npt.NDArray[np.integer] = model.fit_predict(vectors.astype(np.float64))
    return labels
