"""Disjoint sets over an array of parents, for compiled code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.compiled import compiled


@compiled
def find_root(parents: npt.NDArray[np.int32], node: int) -> int:
    """Root of the set of ``node``, halving the path on the way."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
