"""scikit-learn's DBSCAN within cosine distance 0.5."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import DBSCAN


def warm_up(vectors: npt.NDArray[np.floating]) -> None:
    """Nothing but imports, which have happened, and first pages."""
    group(vectors)


def group(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.integer]:
    """Labels (N,)."""
    labels: npt.NDArray[np.integer] = DBSCAN(eps=0.5, min_samples=3, metric="cosine").fit_predict(
        vectors.astype(np.float32)
    )
    return labels
