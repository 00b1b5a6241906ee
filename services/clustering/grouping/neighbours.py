"""The k-nearest-neighbour graph by cosine: who builds it, what that takes, and the neighbours of a few new faces."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from services.clustering.grouping.all_pairs import build_from_all_pairs, make_graph
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.graph_checkpoint import GraphCheckpoint, fingerprint_request
from services.clustering.grouping.graph_sizes import choose_method, describe_building
from services.clustering.grouping.inverted_lists import build_from_inverted_lists
from services.clustering.grouping.nearest import Ints, push_rows
from services.clustering.grouping.request import GraphMethod, GroupingSizes
from services.clustering.grouping.vectors import AnyVectors, split_rows, take_rows
from shared.faces.embeddings import Vectors

_QUERY_ROWS: Final = 512
_COLUMN_ROWS: Final = 4096


def build_neighbour_graph(
    vectors: AnyVectors,
    *,
    k: int,
    floor: float,
    sizes: GroupingSizes,
    between_blocks: Callable[[int, int], None],
    method: GraphMethod | None = None,
    checkpoint: Path | None = None,
) -> tuple[NeighbourGraph, GraphMethod]:
    """Build the graph of unit ``vectors`` (N, D), float32 or float16, in memory or mapped from a file: for each row its ``k``
    nearest by float32 cosine, strictly above ``floor``, never the row itself. Answers it with the method used: ``method``,
    or what :func:`choose_method` says.

    What is found is kept in the folder ``checkpoint`` as it grows; the same request goes on from there. Removing the folder
    is the caller's. ``between_blocks(done, total)`` is called after every few blocks, from the calling thread; what it
    raises ends the work. The result does not depend on ``sizes.threads``.
    """
    method = choose_method(len(vectors), method, sizes)
    kept = None
    if checkpoint is not None:
        details = (k, floor, method, sizes.block_rows, *describe_building())
        kept = GraphCheckpoint(checkpoint, fingerprint_request(vectors, *details))
    if method is GraphMethod.INVERTED_LISTS:
        graph = build_from_inverted_lists(
            vectors, k=k, floor=floor, threads=sizes.threads, between_blocks=between_blocks, checkpoint=kept
        )
    else:
        graph = build_from_all_pairs(
            vectors,
            k=k,
            floor=floor,
            block_rows=sizes.block_rows,
            threads=sizes.threads,
            between_blocks=between_blocks,
            checkpoint=kept,
        )
    return graph, method


def find_neighbours_of(
    queries: AnyVectors,
    vectors: AnyVectors,
    *,
    k: int,
    floor: float,
    threads: int,
    between_blocks: Callable[[int, int], None],
) -> NeighbourGraph:
    """The ``k`` nearest rows of unit ``vectors`` (N, D) for each of a few thousand unit ``queries`` (M, D), by float32 cosines
    strictly above ``floor``, exactly: a graph of M rows whose neighbours are rows of ``vectors``. A query that is one of
    them finds itself.
    """
    graph = make_graph(len(queries), k, floor)
    wanted = take_rows(queries, slice(None))
    nobody = np.full(len(queries), -1, dtype=np.int32)
    lists = np.arange(len(queries), dtype=np.int32)
    parts = list(split_rows(len(queries), min(_QUERY_ROWS, max(1, -(-len(queries) // threads)))))
    blocks = list(split_rows(len(vectors), _COLUMN_ROWS))
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads, thread_name_prefix="neighbours") as pool:
        for done, block in enumerate(blocks, 1):
            columns = take_rows(vectors, block)
            names = np.arange(block.start, block.stop, dtype=np.int32)

            def push(part: slice, columns: Vectors = columns, names: Ints = names) -> None:
                product = wanted[part] @ columns.T
                push_rows(product, lists[part], nobody[part], names, graph.neighbours, graph.similarities)

            for _ in pool.map(push, parts):
                pass
            between_blocks(done, len(blocks))
    return graph
