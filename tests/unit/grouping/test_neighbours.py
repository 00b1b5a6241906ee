"""The exact graph equals brute force, in floats and in bytes, however it is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.embeddings import GeneratedFaces
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.graph_sizes import BYTES_FROM, plan_graph
from services.clustering.grouping.neighbours import build_neighbour_graph, find_neighbours_of
from services.clustering.grouping.request import GraphMethod, GroupingCancelled, GroupingSizes
from shared.faces.embeddings import normalise
from tests.unit.grouping.conftest import no_check


def brute_force(vectors: np.ndarray, k: int, floor: float, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Of the first ``count`` rows."""
    cosines = (vectors[:count] @ vectors.T).astype(np.float32)
    np.fill_diagonal(cosines, -2)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    similarities = np.take_along_axis(cosines, order, axis=1)
    return np.where(similarities > floor, order, -1), np.where(similarities > floor, similarities, np.float32(floor))


def link(
    vectors: np.ndarray, k: int = 8, floor: float = 0.2, method: GraphMethod | None = None, **sizes: int
) -> NeighbourGraph:
    graph, _ = build_neighbour_graph(
        vectors, k=k, floor=floor, method=method, sizes=GroupingSizes(**sizes), between_blocks=no_check
    )
    return graph


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
    graph = link(vectors, k, floor, block_rows=block)
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
        graph = link(corners, 8, 0.5, block_rows=block, threads=threads)
        np.testing.assert_array_equal(graph.neighbours, expected)


def test_bytes_find_what_floats_find(faces_10k: GeneratedFaces) -> None:
    """Where they name another, it is a tie within float32's rounding."""
    vectors = faces_10k.vectors
    assert len(vectors) >= BYTES_FROM
    graph = link(vectors, 32)
    neighbours, similarities = brute_force(vectors, 32, 0.2, 1000)
    np.testing.assert_allclose(graph.similarities[:1000], similarities, atol=2e-6)
    assert (graph.neighbours[:1000] == neighbours).mean() > 0.9999


def test_bytes_give_the_same_whatever_the_threads_and_blocks(faces_10k: GeneratedFaces) -> None:
    graph, other = link(faces_10k.vectors), link(faces_10k.vectors, threads=1, block_rows=500)
    np.testing.assert_array_equal(graph.neighbours, other.neighbours)
    np.testing.assert_array_equal(graph.similarities, other.similarities)


def test_vectors_that_bytes_do_not_resolve_are_multiplied_as_floats() -> None:
    """One large component leaves the rest a few steps: here everyone's first is 0.96."""
    random = np.random.default_rng(0)
    vectors = normalise(random.standard_normal((BYTES_FROM, 64)) * 0.036)
    vectors = normalise(np.concatenate([np.full((BYTES_FROM, 1), 3.4, np.float32), vectors], axis=1))
    graph = link(vectors, 8, 0.0)
    _, similarities = brute_force(vectors, 8, 0.0, 500)
    np.testing.assert_allclose(graph.similarities[:500], similarities, atol=1e-6)


@pytest.mark.parametrize("method", list(GraphMethod))
@pytest.mark.parametrize("count", [400, 9000])
def test_halves_in_a_file_give_the_graph_of_their_floats(
    faces_10k: GeneratedFaces, tmp_path: Path, method: GraphMethod, count: int
) -> None:
    halves = faces_10k.vectors[:count].astype(np.float16)
    np.save(tmp_path / "vectors.npy", halves)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    graph = link(mapped, 16, method=method)
    expected = link(halves.astype(np.float32), 16, method=method)
    np.testing.assert_array_equal(graph.neighbours < 0, expected.neighbours < 0)
    np.testing.assert_allclose(graph.similarities, expected.similarities, atol=1e-6)
    assert (graph.neighbours == expected.neighbours).mean() > 0.9999


@pytest.mark.parametrize("method", list(GraphMethod))
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_few_rows(method: GraphMethod, count: int) -> None:
    vectors = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (count, 1))
    graph = link(vectors, 3, method=method)
    others = [[other for other in range(count) if other != row][:3] for row in range(count)]
    assert [[other for other in row if other >= 0] for row in graph.neighbours.tolist()] == others


def test_the_method_follows_the_size_unless_it_is_asked_for() -> None:
    vectors = normalise(np.random.default_rng(0).standard_normal((50, 8)))
    for faces, method, expected in (
        (50, None, GraphMethod.EXACT),
        (49, None, GraphMethod.INVERTED_LISTS),
        (49, GraphMethod.EXACT, GraphMethod.EXACT),
        (50, GraphMethod.INVERTED_LISTS, GraphMethod.INVERTED_LISTS),
    ):
        sizes = GroupingSizes(exact_faces=faces)
        _, used = build_neighbour_graph(vectors, k=4, floor=0.0, method=method, sizes=sizes, between_blocks=no_check)
        assert used is expected


@pytest.mark.parametrize(("rows", "blocks"), [(400, 91), (9000, 46)])
def test_progress_rises_to_its_end_and_can_stop_the_work(faces_10k: GeneratedFaces, rows: int, blocks: int) -> None:
    """The blocks of all pairs; from 8,192 faces on the slices scored again come on top."""
    vectors = faces_10k.vectors[:rows]
    sizes = GroupingSizes(block_rows=32 if rows == 400 else 1000)
    seen: list[tuple[int, int]] = []
    build_neighbour_graph(
        vectors, k=4, floor=0.0, sizes=sizes, between_blocks=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] >= blocks
    assert len(seen) >= 3

    def stop(_done: int, _total: int) -> None:
        raise GroupingCancelled

    with pytest.raises(GroupingCancelled):
        build_neighbour_graph(vectors, k=4, floor=0.0, sizes=sizes, between_blocks=stop)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_new_faces_find_their_neighbours(faces_10k: GeneratedFaces, kind: type[np.floating]) -> None:
    old, new = faces_10k.vectors[:5000].astype(kind), faces_10k.vectors[5000:5321].astype(kind)
    seen: list[tuple[int, int]] = []
    graph = find_neighbours_of(
        new, old, k=12, floor=0.2, threads=2, between_blocks=lambda done, total: seen.append((done, total))
    )
    cosines = new.astype(np.float32) @ old.astype(np.float32).T
    expected = np.sort(cosines, axis=1)[:, ::-1][:, :12]
    np.testing.assert_allclose(graph.similarities, np.where(expected > 0.2, expected, np.float32(0.2)), atol=1e-6)
    np.testing.assert_array_equal(graph.neighbours < 0, expected <= 0.2)
    found = np.take_along_axis(cosines, np.maximum(graph.neighbours, 0).astype(np.int64), axis=1)
    np.testing.assert_allclose(np.where(graph.neighbours >= 0, found, np.float32(0.2)), graph.similarities, atol=1e-6)
    assert seen[-1] == (2, 2)


def test_a_face_that_is_there_already_finds_itself(faces_10k: GeneratedFaces) -> None:
    vectors = faces_10k.vectors[:500]
    graph = find_neighbours_of(vectors[100:103], vectors, k=1, floor=0.2, threads=4, between_blocks=no_check)
    assert graph.neighbours.ravel().tolist() == [100, 101, 102]


@pytest.mark.parametrize("method", list(GraphMethod))
def test_the_plan_names_the_result_and_grows_with_what_is_asked(method: GraphMethod) -> None:
    sizes = GroupingSizes()
    small, large = (plan_graph(faces, 512, method, sizes) for faces in (20_000, 1_000_000))
    assert small.result == 20_000 * 32 * 8
    assert 40 * small.building < 50 * large.building
    assert large.building < 2 * 1024**3
    more = plan_graph(20_000, 512, method, GroupingSizes(neighbours=64, threads=4))
    assert (more.result, more.building > small.building) == (2 * small.result, True)
