"""The graph by inverted lists: each row looks for neighbours in the cells around it only. O(N^1.5 * D) time.

Cells are those of k-means, about 3 * sqrt(N) of them. A row is stored in its two nearest and looks into its nearest
:data:`PROBED`, a whole cell at a time as one product of bytes; the float32 cosines of the best candidates decide, as in
:mod:`all_pairs`. The eighth whose best candidate is the farthest looks into :data:`PROBED_ALONE`: blurred and turned faces,
whose few weak links decide whether they belong to somebody, lie between cells. At the end everyone is told who found them: a
pair is missed only if neither looked where the other is.

Rows are worked through in slices that share nothing they write to, so threads need no locks, a finished slice can be kept, and
the same vectors give the same graph, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.all_pairs import candidate_floor, make_graph
from services.clustering.grouping.byte_products import ByteProduct, Bytes, ByteScale, SignedBytes, choose_scale
from services.clustering.grouping.cells import ROUNDS, Centres, train_cells
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.graph_checkpoint import GraphCheckpoint
from services.clustering.grouping.graph_sizes import (
    ALONE_SHARE,
    BLOCK_ROWS,
    PROBED,
    PROBED_ALONE,
    SPARE,
    STORED,
    count_cells,
    count_slice_rows,
)
from services.clustering.grouping.nearest import Ints, make_product_lists, push_back, push_rows, rescore
from services.clustering.grouping.threads import work_in_threads
from services.clustering.grouping.vectors import AnyVectors, split_rows, take_rows

_BLOCKS_PER_STEP = 16
_TOLD_ROWS = 131_072

Cells = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Stored rows ``start``..``end`` of a cell, a block at most: what is multiplied at once."""

    cell: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Lists:
    """``nearest`` (N, PROBED): the cells of ``centres`` each row looks into, nearest first. ``names`` (N * STORED,): the
    stored rows, cell by cell; ``numbers`` (N * STORED * D,): their bytes, (D, n) of each piece.
    """

    centres: Centres
    nearest: Cells
    names: Ints
    numbers: npt.NDArray[np.int8]
    pieces: list[_Piece]

    def columns(self, piece: _Piece) -> SignedBytes:
        width = piece.end - piece.start
        dimension = len(self.numbers) // len(self.names)
        return self.numbers[piece.start * dimension : piece.end * dimension].reshape(dimension, width)


def build_from_inverted_lists(
    vectors: AnyVectors,
    *,
    k: int,
    floor: float,
    threads: int,
    between_blocks: Callable[[int, int], None],
    checkpoint: GraphCheckpoint | None = None,
) -> NeighbourGraph:
    """As :func:`~services.clustering.grouping.neighbours.build_neighbour_graph`, approximately."""
    graph = make_graph(len(vectors), k, floor)
    slices = list(split_rows(len(vectors), count_slice_rows(len(vectors))))
    missing = [rows for rows in slices if not (checkpoint and _take_kept(graph, rows, checkpoint))]
    search = _Search(vectors, choose_scale(vectors), k, floor, threads)
    told = list(split_rows(len(vectors), _TOLD_ROWS))
    total = len(told) + (len(missing) + search.steps if missing else 0)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        between_blocks(done, total)

    if missing:
        lists = search.make_lists(advance)
        with work_in_threads(lambda rows: search.find(lists, rows), missing, threads) as found:
            for rows, part in found:
                graph.neighbours[rows], graph.similarities[rows] = part.neighbours, part.similarities
                if checkpoint:
                    checkpoint.keep(_name(rows), neighbours=part.neighbours, similarities=part.similarities)
                advance()
        del lists
    for rows in told:
        push_back(rows.start, rows.stop, graph.neighbours, graph.similarities)
        advance()
    return graph


class _Search:
    def __init__(self, vectors: AnyVectors, scale: ByteScale, k: int, floor: float, threads: int) -> None:
        self._vectors = vectors
        self._scale = scale
        self._k = k
        self._floor = floor
        self._threads = threads
        self._product = ByteProduct(BLOCK_ROWS**2)
        self._blocks = list(split_rows(len(vectors), BLOCK_ROWS))
        self.steps = ROUNDS + len(self._blocks) // _BLOCKS_PER_STEP + 1
        """How often :meth:`make_lists` advances."""

    def make_lists(self, advance: Callable[[], None]) -> _Lists:
        """Train the cells and store every row in its own."""
        count, dimension = self._vectors.shape
        cells = count_cells(count)
        centres = train_cells(self._vectors, self._scale, self._product, cells, self._threads, advance)
        nearest = np.empty((count, min(PROBED, cells)), dtype=np.uint16)

        def assign(rows: slice) -> None:
            numbers = self._scale.encode_rows(take_rows(self._vectors, rows))
            nearest[rows] = centres.find_nearest(self._product, numbers, nearest.shape[1])

        with work_in_threads(assign, self._blocks, self._threads) as assigned:
            for done, _ in enumerate(assigned, 1):
                if done % _BLOCKS_PER_STEP == 0:
                    advance()
        stored = nearest[:, : min(STORED, cells)]
        names, bounds = _order_by_cell(stored, cells)
        pieces = list(_cut(bounds))
        lists = _Lists(centres, nearest, names, np.empty(len(names) * dimension, dtype=np.int8), pieces)

        def fill(piece: _Piece) -> None:
            part = take_rows(self._vectors, names[piece.start : piece.end])
            lists.columns(piece)[:] = self._scale.encode_columns(part)

        with work_in_threads(fill, pieces, self._threads) as filled:
            for _ in filled:
                pass
        advance()
        return lists

    def find(self, lists: _Lists, rows: slice) -> NeighbourGraph:
        """The neighbours of a slice of rows."""
        numbers = np.empty((rows.stop - rows.start, self._vectors.shape[1]), dtype=np.uint8)
        for part in split_rows(len(numbers)):
            numbers[part] = self._scale.encode_rows(
                take_rows(self._vectors, slice(rows.start + part.start, rows.start + part.stop))
            )
        floor = candidate_floor(self._scale, self._floor)
        candidates, products = make_product_lists(len(numbers), self._k + SPARE, floor)
        everyone = np.arange(len(numbers), dtype=np.int32)
        self._look(lists, lists.nearest[rows], numbers, everyone, rows.start, candidates, products)
        best = products[:, 0]
        alone = everyone[np.argsort(best, kind="stable")[: len(best) // ALONE_SHARE]]
        further = np.empty((len(alone), min(PROBED_ALONE, lists.centres.count)), dtype=np.uint16)
        for part in split_rows(len(alone), BLOCK_ROWS):
            further[part] = lists.centres.find_nearest(self._product, numbers[alone[part]], further.shape[1])
        self._look(lists, further[:, lists.nearest.shape[1] :], numbers, alone, rows.start, candidates, products)
        found = make_graph(len(numbers), self._k, self._floor)
        rescore(self._vectors, rows.start, candidates, found.neighbours, found.similarities)
        return found

    def _look(
        self,
        lists: _Lists,
        cells: Cells,
        numbers: Bytes,
        asking: Ints,
        first: int,
        candidates: Ints,
        products: Ints,
    ) -> None:
        """Push what is stored in ``cells`` (m, p) into the candidates of the rows ``asking`` (m,) of a slice that begins with
        the row ``first`` and has the bytes ``numbers``.
        """
        order, bounds = _order_by_cell(cells, lists.centres.count)
        for piece in lists.pieces:
            columns = lists.columns(piece)
            names = lists.names[piece.start : piece.end]
            for start in range(bounds[piece.cell], bounds[piece.cell + 1], BLOCK_ROWS):
                own = asking[order[start : min(start + BLOCK_ROWS, bounds[piece.cell + 1])]]
                product = self._product.multiply(numbers[own], columns)
                push_rows(product, own, own + np.int32(first), names, candidates, products)


def _order_by_cell(cells: Cells, count: int) -> tuple[Ints, npt.NDArray[np.int64]]:
    """Rows of ``cells`` (m, p) cell by cell, ascending in each, and where each of ``count`` cells begins (count + 1,)."""
    flat = cells.ravel()
    order = np.argsort(flat, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=count))])
    return (order // cells.shape[1]).astype(np.int32), bounds


def _cut(bounds: npt.NDArray[np.int64]) -> Iterator[_Piece]:
    for cell in range(len(bounds) - 1):
        for start in range(int(bounds[cell]), int(bounds[cell + 1]), BLOCK_ROWS):
            yield _Piece(cell, start, min(start + BLOCK_ROWS, int(bounds[cell + 1])))


def _name(rows: slice) -> str:
    return f"rows-{rows.start}"


def _take_kept(graph: NeighbourGraph, rows: slice, checkpoint: GraphCheckpoint) -> bool:
    kept = checkpoint.read(_name(rows))
    if kept is None:
        return False
    graph.neighbours[rows], graph.similarities[rows] = kept["neighbours"], kept["similarities"]
    return True
