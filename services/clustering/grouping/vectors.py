"""Reading embeddings that may be float16, or mapped from a file: a slice at a time, as float32.

A million faces of 512 dimensions are 2 GB as float32; nothing here or in the steps that read them makes that copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.faces.embeddings import Vectors

SLICE_ROWS: Final = 4096

AnyVectors = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int32]
BetweenBlocks = Callable[[int, int], None]
"""Told what is done and the total; it raises what is to end the work."""

Rows = npt.NDArray[np.integer]


def take_rows(vectors: AnyVectors, rows: Rows | slice) -> Vectors:
    """Those rows as float32, (n, D); a view only of what is float32 already and asked for as a slice."""
    return np.asarray(vectors[rows], dtype=np.float32)


def split_rows(count: int, rows: int = SLICE_ROWS) -> Iterator[slice]:
    """Consecutive slices of at most ``rows`` that cover 0..count-1."""
    for start in range(0, count, rows):
        yield slice(start, min(count, start + rows))
