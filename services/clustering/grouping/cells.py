"""Cells around the centres of k-means on the sphere, by products of bytes.

Sums are of whole numbers and the random choice has a fixed seed: the same vectors give the same cells, whatever the threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.byte_products import (
    ZERO_POINT,
    ByteProduct,
    Bytes,
    ByteScale,
    SignedBytes,
    choose_scale,
)
from services.clustering.grouping.graph_sizes import BLOCK_ROWS, TRAINED_PER_CELL
from services.clustering.grouping.nearest import Ints, add_rows, make_product_lists, push_rows
from services.clustering.grouping.threads import work_in_threads
from services.clustering.grouping.vectors import AnyVectors, split_rows, take_rows
from shared.faces.embeddings import Vectors

ROUNDS: Final = 4

_SEED = 0
_NO_PRODUCT = -(2**31)


class Centres:
    """Unit vectors (cells, D), ready to be multiplied with."""

    def __init__(self, units: Vectors) -> None:
        scale = choose_scale(units)
        self.count = len(units)
        self._blocks: list[tuple[Ints, SignedBytes]] = [
            (np.arange(part.start, part.stop, dtype=np.int32), scale.encode_columns(units[part]))
            for part in split_rows(len(units), BLOCK_ROWS)
        ]

    def find_nearest(self, product: ByteProduct, rows: Bytes, length: int) -> Ints:
        """The ``length`` nearest cells (m, length) of ``rows`` (m, D), at most a block of them; nearest first."""
        nearest, numbers = make_product_lists(len(rows), length, _NO_PRODUCT)
        lists = np.arange(len(rows), dtype=np.int32)
        nobody = np.full(len(rows), -1, dtype=np.int32)
        for names, columns in self._blocks:
            push_rows(product.multiply(rows, columns), lists, nobody, names, nearest, numbers)
        return nearest


def train_cells(
    vectors: AnyVectors,
    scale: ByteScale,
    product: ByteProduct,
    cells: int,
    threads: int,
    advance: Callable[[], None],
) -> Centres:
    """Centres of ``cells`` (at most N) cells of unit ``vectors`` (N, D), from a sample; ``advance`` is called after each of
    :data:`ROUNDS`.
    """
    random = np.random.default_rng(_SEED)
    chosen = np.sort(random.choice(len(vectors), min(len(vectors), cells * TRAINED_PER_CELL), replace=False))
    sample = np.empty((len(chosen), vectors.shape[1]), dtype=np.uint8)
    for part in split_rows(len(chosen)):
        sample[part] = scale.encode_rows(take_rows(vectors, chosen[part]))
    sums = _pick(sample, cells, random)
    for _ in range(ROUNDS):
        centres = Centres(_normalise(sums))

        def find(part: slice, centres: Centres = centres) -> Ints:
            return centres.find_nearest(product, sample[part], 1)[:, 0]

        sums = np.zeros((cells, vectors.shape[1]), dtype=np.int32)
        with work_in_threads(find, split_rows(len(sample), BLOCK_ROWS), threads) as found:
            for part, labels in found:
                add_rows(sample[part], labels, sums)
        empty = np.flatnonzero(~sums.any(axis=1))
        sums[empty] = _pick(sample, len(empty), random)
        advance()
    return Centres(_normalise(sums))


def _pick(sample: Bytes, count: int, random: np.random.Generator) -> Ints:
    rows = sample[random.choice(len(sample), count, replace=False)]
    return rows.astype(np.int32) - ZERO_POINT


def _normalise(sums: Ints) -> npt.NDArray[np.float32]:
    units = sums.astype(np.float32)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.float32(1e-6))
    return units
