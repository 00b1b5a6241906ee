"""The graph by inverted lists is near the exact one, and always the same."""

from __future__ import annotations

import numpy as np
import pytest

from bench.embeddings import GeneratedFaces, generate_faces
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.graph_sizes import count_cells, count_slice_rows
from services.clustering.grouping.inverted_lists import build_from_inverted_lists
from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.request import GraphMethod, GroupingCancelled, GroupingSizes
from shared.faces.embeddings import normalise
from tests.unit.grouping.conftest import no_check


@pytest.fixture(scope="module")
def faces_20k() -> GeneratedFaces:
    return generate_faces(20_000, seed=0)


@pytest.fixture(scope="module")
def lists_20k(faces_20k: GeneratedFaces) -> NeighbourGraph:
    return build_from_inverted_lists(faces_20k.vectors, k=32, floor=0.2, threads=2, between_blocks=no_check)


def name_edges(graph: NeighbourGraph, above: float) -> np.ndarray:
    rows, places = np.nonzero((graph.neighbours >= 0) & (graph.similarities > above))
    return rows * len(graph.neighbours) + graph.neighbours[rows, places]


def test_nearly_every_neighbour_is_found(faces_20k: GeneratedFaces, lists_20k: NeighbourGraph) -> None:
    exact, _ = build_neighbour_graph(
        faces_20k.vectors,
        k=32,
        floor=0.2,
        method=GraphMethod.EXACT,
        sizes=GroupingSizes(),
        between_blocks=no_check,
    )
    for above, recall in ((0.2, 0.9), (0.3, 0.97), (0.4, 0.995)):
        assert np.isin(name_edges(exact, above), name_edges(lists_20k, above)).mean() >= recall


def test_the_lists_are_in_order_without_doubles_and_their_cosines_are_right(
    faces_20k: GeneratedFaces, lists_20k: NeighbourGraph
) -> None:
    neighbours, similarities = lists_20k.neighbours, lists_20k.similarities
    assert (np.diff(similarities, axis=1) <= 0).all()
    ordered = np.sort(neighbours, axis=1)
    assert ((np.diff(ordered, axis=1) > 0) | (ordered[:, 1:] < 0)).all()
    assert not (neighbours == np.arange(20_000)[:, None]).any()
    rows, places = np.nonzero(neighbours >= 0)
    vectors = faces_20k.vectors
    picked = np.random.default_rng(0).choice(len(rows), 20_000)
    cosines = np.einsum("nd,nd->n", vectors[rows[picked]], vectors[neighbours[rows[picked], places[picked]]])
    np.testing.assert_allclose(similarities[rows[picked], places[picked]], cosines, atol=1e-6)
    assert (similarities[neighbours < 0] == np.float32(0.2)).all()
    assert (similarities[neighbours >= 0] > np.float32(0.2)).all()


def test_who_is_found_knows_it(lists_20k: NeighbourGraph) -> None:
    """A neighbour of mine has me, or 32 who are nearer."""
    neighbours, similarities = lists_20k.neighbours, lists_20k.similarities
    rows, places = np.nonzero(neighbours >= 0)
    others = neighbours[rows, places]
    known = (neighbours[others] == rows[:, None]).any(axis=1)
    assert (known | (similarities[others, -1] >= similarities[rows, places])).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_whatever_the_threads(faces_20k: GeneratedFaces, lists_20k: NeighbourGraph, threads: int) -> None:
    graph = build_from_inverted_lists(faces_20k.vectors, k=32, floor=0.2, threads=threads, between_blocks=no_check)
    np.testing.assert_array_equal(graph.neighbours, lists_20k.neighbours)
    np.testing.assert_array_equal(graph.similarities, lists_20k.similarities)


def test_a_cell_larger_than_a_block_is_cut() -> None:
    random = np.random.default_rng(0)
    vectors = normalise(random.standard_normal((200, 32)))
    vectors = np.concatenate([vectors, np.tile(vectors[7], (3000, 1))])
    graph = build_from_inverted_lists(vectors, k=4, floor=0.2, threads=2, between_blocks=no_check)
    assert graph.neighbours[-1].tolist() == [7, 200, 201, 202]
    np.testing.assert_allclose(graph.similarities[200:], 1.0, atol=1e-6)


def test_progress_rises_to_its_end_and_can_stop_the_work(faces_20k: GeneratedFaces) -> None:
    seen: list[tuple[int, int]] = []

    def stop_late(done: int, total: int) -> None:
        seen.append((done, total))
        if done == total - 1:
            raise GroupingCancelled

    with pytest.raises(GroupingCancelled):
        build_from_inverted_lists(faces_20k.vectors, k=4, floor=0.2, threads=2, between_blocks=stop_late)
    assert [done for done, _ in seen] == list(range(1, seen[-1][1]))


@pytest.mark.parametrize(("faces", "cells"), [(1, 1), (2, 2), (20_000, 512), (100_000, 1024), (1_000_000, 4096)])
def test_cells_and_slices_follow_the_size(faces: int, cells: int) -> None:
    assert count_cells(faces) == cells
    rows = count_slice_rows(faces)
    assert rows >= faces / 2 or 8 * cells <= rows <= 32 * cells
    assert -(-faces // rows) % 2 == 0 or faces == 1
