"""Deterministic pictures for holding a rewritten graph against the original.

Zeros would hide most errors, and white noise drives a network where no photo does: these are smooth blobs of
different grain, all different from each other, so that a mix-up within a batch shows.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SEED = 20240817


def probe_pictures(count: int, side: int) -> NDArray[np.uint8]:
    """(count, side, side, 3) uint8, the same on every call."""
    random = np.random.default_rng(_SEED)
    pictures = np.empty((count, side, side, 3), np.uint8)
    for index in range(count):
        grain = 4 + 3 * index
        coarse = random.integers(0, 256, (grain, grain, 3)).astype(np.float32)
        smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        pictures[index] = np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    return pictures


def as_input(pictures: NDArray[np.uint8], mean: float, deviation: float) -> NDArray[np.float32]:
    """(N, S, S, 3) BGR pictures to (N, 3, S, S) RGB float32, (pixel - mean) / deviation."""
    rgb = pictures[..., ::-1].astype(np.float32)
    return np.ascontiguousarray(((rgb - mean) / deviation).transpose(0, 3, 1, 2), dtype=np.float32)
