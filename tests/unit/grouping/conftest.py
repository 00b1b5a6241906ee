"""Generated faces, grouped once for several tests."""

from __future__ import annotations

import numpy as np
import pytest

from bench.embeddings import GeneratedFaces, generate_faces
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.pipeline import group_faces
from services.clustering.grouping.request import GroupingRequest, GroupingResult, GroupingSizes, Progress


def never() -> bool:
    """The flag of a grouping nobody cancels."""
    return False


def ignore(progress: Progress) -> None:
    """Progress nobody watches."""


def no_check(done: int, total: int) -> None:
    """Blocks nobody watches."""


def link_all(vectors: np.ndarray, k: int, floor: float = -1.0) -> NeighbourGraph:
    """The k-NN graph with everything in it."""
    sizes = GroupingSizes(block_rows=256)
    return build_neighbour_graph(vectors, k=k, floor=floor, sizes=sizes, between_blocks=no_check)[0]


@pytest.fixture(scope="session")
def faces_5k() -> GeneratedFaces:
    return generate_faces(5000, seed=0)


@pytest.fixture(scope="session")
def faces_10k() -> GeneratedFaces:
    return generate_faces(10_000, seed=0)


@pytest.fixture(scope="session")
def faces_1k() -> GeneratedFaces:
    return generate_faces(1000, seed=1)


@pytest.fixture(scope="session")
def request_5k(faces_5k: GeneratedFaces) -> GroupingRequest:
    return GroupingRequest(faces_5k.vectors, np.arange(5000), faces_5k.quality)


@pytest.fixture(scope="session")
def result_5k(request_5k: GroupingRequest) -> GroupingResult:
    return group_faces(request_5k, ignore, never)
