"""The exact k-nearest-neighbour graph by cosine, in blocks.

Every unordered pair of row blocks is multiplied once; one compiled pass over the product pushes each
similarity into the top-k lists of both its rows, so no more than one block of similarities per thread ever
exists. O(N^2 * D) time, O(N * k) memory beyond the vectors. Ties are broken by the smaller row, which makes
the graph independent of threads and block size (up to the last bit of the products themselves).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.graph import MISSING, NeighbourGraph
from shared.faces.embeddings import Vectors

_JOBS_BETWEEN_CHECKS: Final = 8


def build_neighbour_graph(
    vectors: Vectors,
    *,
    k: int,
    floor: float,
    block_rows: int,
    threads: int,
    between_blocks: Callable[[int, int], None],
) -> NeighbourGraph:
    """Build the graph of unit vectors (N, D), neighbours strictly above ``floor``, never the row itself.

    ``between_blocks(done, total)`` is called after every few blocks, from the calling thread; what it raises
    ends the work.
    """
    count = len(vectors)
    neighbours = np.full((count, k), MISSING, dtype=np.int32)
    similarities = np.full((count, k), floor, dtype=np.float32)
    graph = NeighbourGraph(neighbours, similarities, floor)
    starts = list(range(0, count, block_rows))
    locks = [threading.Lock() for _ in starts]
    scratch = threading.local()

    def multiply(pair: tuple[int, int]) -> None:
        upper, lower = pair
        rows = vectors[starts[upper] : starts[upper] + block_rows]
        columns = vectors[starts[lower] : starts[lower] + block_rows]
        if not hasattr(scratch, "numbers"):
            scratch.numbers = np.empty(block_rows * block_rows, dtype=np.float32)
        product = scratch.numbers[: len(rows) * len(columns)].reshape(len(rows), len(columns))
        np.dot(rows, columns.T, out=product)
        # Always the smaller index first, so that no two threads can wait for each other.
        with locks[upper]:
            if upper == lower:
                push_block(product, starts[upper], starts[lower], neighbours, similarities)
            else:
                with locks[lower]:
                    push_block(product, starts[upper], starts[lower], neighbours, similarities)

    total = len(starts) * (len(starts) + 1) // 2
    done = 0
    pairs = _diagonals(len(starts))
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads, thread_name_prefix="neighbours") as pool:
        while batch := list(islice(pairs, _JOBS_BETWEEN_CHECKS * threads)):
            for _ in pool.map(multiply, batch):
                done += 1
            between_blocks(done, total)
    return graph


def _diagonals(blocks: int) -> Iterator[tuple[int, int]]:
    """All block pairs, the diagonal first: lists fill early, and threads seldom want the same block."""
    for offset in range(blocks):
        for upper in range(blocks - offset):
            yield upper, upper + offset


@compiled
def insert_neighbour(
    neighbours: npt.NDArray[np.int32],
    similarities: npt.NDArray[np.float32],
    row: int,
    other: int,
    value: np.float32,
) -> None:
    """Put ``other`` into the sorted list of ``row`` if it beats the last entry."""
    place = neighbours.shape[1] - 1
    last = similarities[row, place]
    if value < last or (value == last and not other < neighbours[row, place]):
        return
    while place > 0:
        before = similarities[row, place - 1]
        if before > value or (before == value and neighbours[row, place - 1] < other):
            break
        similarities[row, place] = before
        neighbours[row, place] = neighbours[row, place - 1]
        place -= 1
    similarities[row, place] = value
    neighbours[row, place] = other


@compiled
def push_block(
    product: npt.NDArray[np.float32],
    first_row: int,
    first_column: int,
    neighbours: npt.NDArray[np.int32],
    similarities: npt.NDArray[np.float32],
) -> None:
    """Push a block of similarities into the lists of its rows and, off the diagonal, of its columns.

    Columns are looked at 32 at a time: a vectorised count tells whether any of them could enter any list,
    which is almost never.
    """
    stride = 32
    rows, columns = product.shape
    last = neighbours.shape[1] - 1
    diagonal = first_row == first_column
    strips = (columns + stride - 1) // stride
    lowest = np.empty(strips, np.float32)
    for strip in range(strips):
        least = np.float32(2.0)
        for column in range(strip * stride, min(columns, strip * stride + stride)):
            least = min(least, similarities[first_column + column, last])
        lowest[strip] = least
    for i in range(rows):
        row = first_row + i
        for strip in range(strips):
            start = strip * stride
            end = min(columns, start + stride)
            bar = similarities[row, last]
            if not diagonal:
                bar = min(bar, lowest[strip])
            hits = 0
            for j in range(start, end):
                hits += product[i, j] >= bar
            if hits == 0:
                continue
            for j in range(start, end):
                value = product[i, j]
                if value < bar:
                    continue
                column = first_column + j
                if column != row:
                    insert_neighbour(neighbours, similarities, row, column, value)
                    if not diagonal:
                        insert_neighbour(neighbours, similarities, column, row, value)
            if not diagonal:
                least = np.float32(2.0)
                for j in range(start, end):
                    least = min(least, similarities[first_column + j, last])
                lowest[strip] = least
