"""The hdbscan library on unit vectors: what HDBSCAN is, exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hdbscan import HDBSCAN


def warm_up(vectors: npt.NDArray[np.floating]) -> None:
    """Nothing but imports, which have happened, and first pages."""
    group(vectors)


def group(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.integer]:
    """Labels (N,). By all pairs: among 512 numbers the library's trees find the same, only later."""
    model = HDBSCAN(metric="euclidean", algorithm="generic", min_cluster_size=3, min_samples=3)
    labels: npt.NDArray[np.integer] = model.fit_predict(vectors.astype(np.float64))
    return labels
