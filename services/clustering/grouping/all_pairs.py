"""The graph of all pairs, in blocks: O(N^2 * D) time, O(N * (k + D)) bytes.

Every unordered pair of row blocks is multiplied once; one compiled pass over the product pushes each similarity into the
lists of both its rows, so no more than one block of similarities per thread ever exists.

Large sets are multiplied as bytes, a sixth of the time: each row keeps some candidates more than asked for, and their float32
cosines decide. What it misses is a neighbour that the rounding throws back by more than the spare places, at the end of
a full list: 2 of 122,375 at 100,000 generated faces. Small sets, and vectors with a few large components, which bytes do not
resolve, are multiplied as float32.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from services.clustering.grouping.byte_products import ByteProduct, ByteScale, choose_scale
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.graph_checkpoint import GraphCheckpoint
from services.clustering.grouping.graph_sizes import BYTES_FROM, SPARE
from services.clustering.grouping.nearest import Ints, Numbers, make_lists, make_product_lists, push_pairs, rescore
from services.clustering.grouping.vectors import AnyVectors, split_rows, take_rows

BYTE_BLOCK_ROWS: Final = 768
SLACK: Final = 6.0
"""How many standard deviations below the floor a product of bytes is still a candidate."""

_TOLERATED_ERROR: Final = 2e-3
_PAIRS_BETWEEN_CHECKS: Final = 32
_KEPT_SHARE: Final = 10
_RESCORED_ROWS: Final = 16_384
_KEPT: Final = "pairs"


class _Blocks(Protocol):
    """Who multiplies blocks of ``rows``; ``exact`` products are cosines already, of others ``meaning`` names the scale."""

    rows: int
    exact: bool
    meaning: str

    def make_lists(self) -> tuple[Ints, Numbers]:
        """Empty lists for the products."""
        ...

    def multiply(self, upper: int, lower: int) -> Numbers:
        """The block that begins at row ``upper`` by the one that begins at ``lower``."""
        ...


def build_from_all_pairs(
    vectors: AnyVectors,
    *,
    k: int,
    floor: float,
    block_rows: int,
    threads: int,
    between_blocks: Callable[[int, int], None],
    checkpoint: GraphCheckpoint | None = None,
) -> NeighbourGraph:
    """As :func:`~services.clustering.grouping.neighbours.build_neighbour_graph`, exactly."""
    blocks = _choose_blocks(vectors, k, floor, block_rows)
    starts = range(0, len(vectors), blocks.rows)
    neighbours, numbers = blocks.make_lists()
    locks = [threading.Lock() for _ in starts]

    def push(pair: tuple[int, int]) -> None:
        upper, lower = pair
        product = blocks.multiply(starts[upper], starts[lower])
        # Always the smaller index first, so that no two threads can wait for each other.
        with locks[upper]:
            if upper == lower:
                push_pairs(product, starts[upper], starts[lower], neighbours, numbers)
            else:
                with locks[lower]:
                    push_pairs(product, starts[upper], starts[lower], neighbours, numbers)

    pairs = len(starts) * (len(starts) + 1) // 2
    slices = list(split_rows(len(vectors), _RESCORED_ROWS)) if not blocks.exact else []
    total = pairs + len(slices)
    done = 0
    # Kept by a processor that multiplies bytes another way, numbers mean something else.
    kept = checkpoint.read(_KEPT) if checkpoint else None
    if kept is not None and str(kept["meaning"]) == blocks.meaning:
        done = int(kept["done"])
        neighbours[:], numbers[:] = kept["neighbours"], kept["numbers"]
    remaining = islice(_diagonals(len(starts)), done, None)
    last_kept = done
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads, thread_name_prefix="neighbours") as pool:
        while batch := list(islice(remaining, _PAIRS_BETWEEN_CHECKS)):
            for _ in pool.map(push, batch):
                done += 1
            if checkpoint and (done == pairs or done - last_kept >= pairs / _KEPT_SHARE):
                checkpoint.keep(
                    _KEPT,
                    done=np.int64(done),
                    meaning=np.array(blocks.meaning),
                    neighbours=neighbours,
                    numbers=numbers,
                )
                last_kept = done
            between_blocks(done, total)
        if not slices:
            return NeighbourGraph(neighbours, numbers.astype(np.float32, copy=False), floor)
        graph = make_graph(len(vectors), k, floor)

        def finish(rows: slice) -> None:
            rescore(vectors, rows.start, neighbours[rows], graph.neighbours[rows], graph.similarities[rows])

        for _ in pool.map(finish, slices):
            done += 1
            between_blocks(done, total)
    return graph


def make_graph(count: int, k: int, floor: float) -> NeighbourGraph:
    """A graph without neighbours."""
    return NeighbourGraph(*make_lists(count, k, floor), floor)


def candidate_floor(scale: ByteScale, floor: float) -> int:
    """The product of bytes above which a pair may have a cosine above ``floor``."""
    return scale.to_product(floor - SLACK * scale.error)


def _choose_blocks(vectors: AnyVectors, k: int, floor: float, block_rows: int) -> _Blocks:
    if len(vectors) >= BYTES_FROM:
        scale = choose_scale(vectors)
        if scale.error <= _TOLERATED_ERROR:
            return _ByteBlocks(
                vectors, scale, k + SPARE, candidate_floor(scale, floor), min(block_rows, BYTE_BLOCK_ROWS)
            )
    return _FloatBlocks(vectors, k, floor, block_rows)


class _FloatBlocks:
    exact = True
    meaning = "cosines"

    def __init__(self, vectors: AnyVectors, length: int, floor: float, rows: int) -> None:
        self.rows = rows
        self._vectors = vectors
        self._length = length
        self._floor = floor
        self._own = threading.local()

    def make_lists(self) -> tuple[Ints, Numbers]:
        return make_lists(len(self._vectors), self._length, self._floor)

    def multiply(self, upper: int, lower: int) -> npt.NDArray[np.float32]:
        rows = take_rows(self._vectors, slice(upper, upper + self.rows))
        columns = take_rows(self._vectors, slice(lower, lower + self.rows))
        if not hasattr(self._own, "numbers"):
            self._own.numbers = np.empty(self.rows**2, dtype=np.float32)
        numbers: npt.NDArray[np.float32] = self._own.numbers
        product = numbers[: len(rows) * len(columns)].reshape(len(rows), len(columns))
        return np.dot(rows, columns.T, out=product)


class _ByteBlocks:
    exact = False

    def __init__(self, vectors: AnyVectors, scale: ByteScale, length: int, floor: int, rows: int) -> None:
        self.rows = rows
        self.meaning = f"products of {scale.steps:.6g} steps, at most {scale.limit}"
        self._length = length
        self._floor = floor
        self._left = np.empty(vectors.shape, dtype=np.uint8)
        self._right = []
        for start in range(0, len(vectors), rows):
            part = vectors[start : start + rows]
            self._left[start : start + rows] = scale.encode_rows(part)
            self._right.append(scale.encode_columns(part))
        self._product = ByteProduct(rows**2)

    def make_lists(self) -> tuple[Ints, Numbers]:
        return make_product_lists(len(self._left), self._length, self._floor)

    def multiply(self, upper: int, lower: int) -> npt.NDArray[np.int32]:
        return self._product.multiply(self._left[upper : upper + self.rows], self._right[lower // self.rows])


def _diagonals(blocks: int) -> Iterator[tuple[int, int]]:
    """All block pairs, the diagonal first: lists fill early, and threads seldom want the same block."""
    for offset in range(blocks):
        for upper in range(blocks - offset):
            yield upper, upper + offset
