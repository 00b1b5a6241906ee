"""A graph whose building is stopped goes on from what was kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.embeddings import GeneratedFaces
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.graph_checkpoint import GraphCheckpoint, fingerprint_request
from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.request import GraphMethod, GroupingSizes

SIZES = GroupingSizes(block_rows=512)


class PowerCut(Exception):
    """The end of a process, as far as the graph can tell."""


class Watch:
    """Counts what was called between blocks, and cuts the power at one of them."""

    def __init__(self, cut_at: float = 2.0) -> None:
        self.calls = 0
        self.first: tuple[int, int] | None = None
        self._cut_at = cut_at

    def __call__(self, done: int, total: int) -> None:
        self.calls += 1
        self.first = self.first or (done, total)
        if done >= self._cut_at * total:
            raise PowerCut


def build(
    vectors: np.ndarray,
    method: GraphMethod,
    folder: Path | None,
    watch: Watch,
    k: int = 8,
    sizes: GroupingSizes = SIZES,
) -> NeighbourGraph:
    graph, _ = build_neighbour_graph(
        vectors, k=k, floor=0.2, method=method, sizes=sizes, between_blocks=watch, checkpoint=folder
    )
    return graph


@pytest.mark.parametrize("method", list(GraphMethod))
@pytest.mark.parametrize("cut_at", [0.7, 0.9])
def test_a_killed_build_goes_on_and_gives_the_same(
    faces_10k: GeneratedFaces, tmp_path: Path, method: GraphMethod, cut_at: float
) -> None:
    whole, again = Watch(), Watch()
    expected = build(faces_10k.vectors, method, None, whole)
    with pytest.raises(PowerCut):
        build(faces_10k.vectors, method, tmp_path / "kept", Watch(cut_at))
    graph = build(faces_10k.vectors, method, tmp_path / "kept", again)
    np.testing.assert_array_equal(graph.neighbours, expected.neighbours)
    np.testing.assert_array_equal(graph.similarities, expected.similarities)
    assert again.calls < whole.calls


@pytest.mark.parametrize("method", list(GraphMethod))
def test_a_finished_build_is_only_read(faces_10k: GeneratedFaces, tmp_path: Path, method: GraphMethod) -> None:
    first, again = Watch(), Watch()
    expected = build(faces_10k.vectors, method, tmp_path, first)
    graph = build(faces_10k.vectors, method, tmp_path, again)
    np.testing.assert_array_equal(graph.neighbours, expected.neighbours)
    assert again.calls <= 2 < first.calls


def test_what_was_kept_for_other_vectors_or_another_request_is_not_taken(
    faces_10k: GeneratedFaces, tmp_path: Path
) -> None:
    vectors = faces_10k.vectors[:3000]
    build(vectors, GraphMethod.EXACT, tmp_path, Watch())
    for others, k, sizes in (
        (vectors[::-1], 8, SIZES),
        (vectors[:-1], 8, SIZES),
        (vectors.astype(np.float16), 8, SIZES),
        (vectors, 9, SIZES),
        (vectors, 8, GroupingSizes(block_rows=500)),
    ):
        graph = build(others, GraphMethod.EXACT, tmp_path, Watch(), k, sizes)
        expected = build(others, GraphMethod.EXACT, None, Watch(), k, sizes)
        np.testing.assert_array_equal(graph.neighbours, expected.neighbours)


def test_a_part_is_read_as_it_was_kept_or_not_at_all(tmp_path: Path) -> None:
    kept = GraphCheckpoint(tmp_path / "new", "mine")
    assert kept.read("part") is None
    kept.keep("part", numbers=np.arange(5))
    kept.keep("part", numbers=np.arange(1000))
    part = kept.read("part")
    assert part is not None
    assert part["numbers"].tolist() == list(range(1000))
    assert GraphCheckpoint(tmp_path / "new", "yours").read("part") is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["part.npz"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_part_counts_as_not_there(tmp_path: Path, damage: str) -> None:
    kept = GraphCheckpoint(tmp_path, "mine")
    kept.keep("part", numbers=np.arange(1000))
    path = tmp_path / "part.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(
        {"cut": path.read_bytes()[:3000], "flip": bytes(content), "empty": b"", "text": b"not an archive"}[damage]
    )
    assert kept.read("part") is None


def test_the_fingerprint_is_of_all_numbers() -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    name = fingerprint_request(vectors, 32, 0.2)
    assert name == fingerprint_request(vectors.copy(), 32, 0.2)
    changed = vectors.copy()
    changed[777, 3] = np.nextafter(changed[777, 3], np.float32(9))
    names = {
        name,
        fingerprint_request(changed, 32, 0.2),
        fingerprint_request(vectors.reshape(500, 16), 32, 0.2),
        fingerprint_request(vectors, 33, 0.2),
    }
    assert len(names) == 4
