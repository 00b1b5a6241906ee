"""The graph equals brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.request import GroupingCancelled
from shared.faces.embeddings import normalise
from tests.unit.grouping.conftest import no_check


def brute_force(vectors: np.ndarray, k: int, floor: float) -> tuple[np.ndarray, np.ndarray]:
    cosines = (vectors @ vectors.T).astype(np.float32)
    np.fill_diagonal(cosines, -2)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    similarities = np.take_along_axis(cosines, order, axis=1)
    return np.where(similarities > floor, order, -1), np.where(similarities > floor, similarities, np.float32(floor))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(2, 150),
    k=st.integers(1, 12),
    block=st.sampled_from([1, 7, 32, 64, 200]),
    floor=st.sampled_from([-1.0, 0.0, 0.3]),
)
def test_equals_brute_force(seed: int, count: int, k: int, block: int, floor: float) -> None:
    vectors = normalise(np.random.default_rng(seed).standard_normal((count, 6)))
    k = min(k, count - 1)
    graph = build_neighbour_graph(vectors, k=k, floor=floor, block_rows=block, threads=2, between_blocks=no_check)
    neighbours, similarities = brute_force(vectors, k, floor)
    np.testing.assert_allclose(graph.similarities, similarities, atol=1e-6)
    found = np.take_along_axis(vectors @ vectors.T, np.maximum(graph.neighbours, 0), axis=1)
    np.testing.assert_allclose(np.where(graph.neighbours >= 0, found, np.float32(floor)), similarities, atol=1e-6)
    np.testing.assert_array_equal(graph.neighbours < 0, neighbours < 0)
    assert not (graph.neighbours == np.arange(count)[:, None]).any()


def test_copies_are_ordered_by_row_whatever_the_threads_and_blocks() -> None:
    corners = np.eye(4, dtype=np.float32)[np.random.default_rng(0).integers(0, 4, 300)]
    expected = brute_force(corners, 8, 0.5)[0]
    for block, threads in ((16, 1), (16, 4), (64, 2), (512, 2)):
        graph = build_neighbour_graph(
            corners, k=8, floor=0.5, block_rows=block, threads=threads, between_blocks=no_check
        )
        np.testing.assert_array_equal(graph.neighbours, expected)


def test_progress_rises_to_its_end_and_can_stop_the_work() -> None:
    vectors = normalise(np.random.default_rng(0).standard_normal((400, 8)))
    seen: list[tuple[int, int]] = []
    build_neighbour_graph(
        vectors,
        k=4,
        floor=0.0,
        block_rows=32,
        threads=2,
        between_blocks=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (91, 91)
    assert len(seen) > 3

    def stop(_done: int, _total: int) -> None:
        raise GroupingCancelled

    with pytest.raises(GroupingCancelled):
        build_neighbour_graph(vectors, k=4, floor=0.0, block_rows=32, threads=2, between_blocks=stop)
