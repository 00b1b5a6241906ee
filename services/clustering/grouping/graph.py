"""The graph of nearest neighbours, whoever has found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

MISSING: Final = -1


@dataclass(frozen=True, slots=True)
class NeighbourGraph:
    """``neighbours`` (N, k) int32: rows nearest first, -1 where there are no more above the floor.
    ``similarities`` (N, k) float32: their cosines, ``floor`` where missing.
    """

    neighbours: npt.NDArray[np.int32]
    similarities: npt.NDArray[np.float32]
    floor: float
