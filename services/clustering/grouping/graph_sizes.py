"""How large the parts of a graph are while it is built, and what that takes.

Apart from those who build it, so that a server can say what a run needs without what compiles and multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.clustering.grouping.request import GraphMethod, GroupingSizes

BYTES_FROM: Final = 8192
"""From so many faces on, all pairs are multiplied as bytes and the best re-scored: below, it saves nothing."""

SPARE: Final = 8
"""Candidates kept beyond k, since bytes may order the last of them wrongly."""

TRAINED_PER_CELL: Final = 40
BLOCK_ROWS: Final = 1024
PROBED: Final = 24
"""Cells a face looks into."""

PROBED_ALONE: Final = 192
ALONE_SHARE: Final = 8
"""One face in so many looks into ``PROBED_ALONE`` cells: those whose best match is the weakest (ADR 0015)."""

STORED: Final = 2
"""Cells a face is found in."""

SLICE_ROWS_PER_CELL: Final = 16


def describe_building() -> tuple[int, ...]:
    """What a graph that is gone on with must have been begun with, besides its request."""
    return (
        BYTES_FROM,
        SPARE,
        TRAINED_PER_CELL,
        BLOCK_ROWS,
        PROBED,
        PROBED_ALONE,
        ALONE_SHARE,
        STORED,
        SLICE_ROWS_PER_CELL,
    )


def count_cells(faces: int) -> int:
    """The power of two nearest to 3 * sqrt(N) by its logarithm, at most one for each row."""
    return int(min(2 ** np.round(np.log2(3 * np.sqrt(max(1, faces)))), max(1, faces)))


def count_slice_rows(faces: int) -> int:
    """Rows of a slice: so many that some hundred of them look into each cell; an even number of slices."""
    pairs = max(1, round(faces / (2 * SLICE_ROWS_PER_CELL * count_cells(faces))))
    return max(1, -(-faces // (2 * pairs)))


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """Bytes of a graph, the vectors not counted: ``result``, and ``building`` on top of it while it is built."""

    building: int
    result: int


def plan_graph(faces: int, dimension: int, method: GraphMethod | None, sizes: GroupingSizes) -> GraphPlan:
    """The bound for ``faces`` rows of ``dimension`` numbers. With N faces of D dimensions, k neighbours and c = k + 8
    candidates, T threads, blocks of B rows, in bytes:

        result           N * k * 8              int32 row and float32 cosine per neighbour
        all pairs        T * B * (B + 2 D) * 4  one product per thread and its float32 rows; or, from 8,192 faces on, with
                         N * (2 D + c * 8)      rows and columns as bytes, candidates and their products
        inverted lists   N * (2 D + 120)        stored rows (2 each) and their names, 24 cells to look into as uint16,
                                                and what ordering them takes
                         C * D * 48             C cells: 40 sampled rows as bytes, sums and centres
                         T * S * (D + 960 + c * 8 + k * 8)   slices of S rows, about 16 C: bytes, cells in order (20 each;
                                                24, and 192 of every eighth), candidates, answers
                         T * (1024 * 1024 * 4 + 4096 * D * 4)   products, rows as float32
    """
    k, threads = sizes.neighbours, sizes.threads
    candidates = k + SPARE
    if choose_method(faces, method, sizes) is GraphMethod.INVERTED_LISTS:
        cells, rows = count_cells(faces), count_slice_rows(faces)
        building = faces * (STORED * dimension + PROBED * 2 + 72)
        building += cells * dimension * (TRAINED_PER_CELL + 8)
        cells_in_order = (PROBED + PROBED_ALONE // ALONE_SHARE) * 20
        building += threads * rows * (dimension + cells_in_order + candidates * 8 + k * 8)
        building += threads * (BLOCK_ROWS * BLOCK_ROWS * 4 + 4096 * dimension * 4)
    else:
        block = min(sizes.block_rows, max(1, faces))
        building = threads * block * (block + 2 * dimension) * 4
        if faces >= BYTES_FROM:
            building += faces * (2 * dimension + candidates * 8)
    return GraphPlan(building, faces * k * 8)


def choose_method(faces: int, method: GraphMethod | None, sizes: GroupingSizes) -> GraphMethod:
    """``method``, or None for exact up to ``sizes.exact_faces``."""
    if method is not None:
        return method
    return GraphMethod.EXACT if faces <= sizes.exact_faces else GraphMethod.INVERTED_LISTS
