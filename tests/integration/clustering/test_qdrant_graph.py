"""The graph as Qdrant finds it: the same neighbours, the same groups, and what happens when the index lags behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import models
from sklearn.metrics import adjusted_rand_score

from bench.embeddings import generate_faces
from services.clustering.adapters import qdrant_graph
from services.clustering.adapters.qdrant_graph import IndexedGraph, QuerySizes, find_neighbours_in_qdrant
from services.clustering.domain.model import ActiveModel
from services.clustering.grouping.graph import MISSING
from services.clustering.grouping.pipeline import group_faces
from services.clustering.grouping.request import GroupingRequest, Progress
from services.clustering.grouping.thresholds import ARCFACE_THRESHOLDS
from shared.errors import PreconditionFailed, Reason
from shared.faces.agreement import separate_noise
from shared.faces.embeddings import Vectors
from shared.faces.projection import LearntSpace, Projection, Strangers
from shared.foundation import Foundation
from shared.vectors.faces import AlikeFaces, FaceFilter, FaceIndex
from shared.vectors.relay import Relay
from tests.integration.clustering.kit import crowd
from tests.integration.library import MODEL, SeededFaces, random_vectors, seed_faces

UNASSIGNED = FaceFilter("default", unassigned=True)
SMALL = QuerySizes(batch=7, calls=2)


class Stopped(Exception):
    """The job was paused."""


class CountingIndex(FaceIndex):
    """Counts the faces whose neighbours it was asked for."""

    asked = 0

    async def find_alike(
        self, model_version: str, face_ids: Sequence[UUID], where: FaceFilter, limit: int, min_cosine: float
    ) -> list[AlikeFaces]:
        self.asked += len(face_ids)
        return await super().find_alike(model_version, face_ids, where, limit, min_cosine)


@pytest.fixture
def index(base: Foundation) -> CountingIndex:
    return CountingIndex(base.qdrant, base.collections)


async def relay_all(base: Foundation) -> None:
    relay = Relay(
        base.database, base.qdrant, base.collections, base.listener, base.clock, base.settings.relay, base.metrics
    )
    while await relay.relay_batch():
        pass


async def seed_indexed(
    base: Foundation, vectors: Vectors, *, library_id: str = "default", qualities: Sequence[float] | None = None
) -> SeededFaces:
    seeded = await seed_faces(base, vectors, library_id=library_id, qualities=qualities)
    await relay_all(base)
    return seeded


async def ignore(done: int, total: int) -> None:
    """Progress nobody watches."""


def model_of(vectors: Vectors, learnt: LearntSpace | None = None) -> ActiveModel:
    return ActiveModel(MODEL, vectors.shape[1], {}, learnt)


def as_stored(vectors: Vectors) -> Vectors:
    """Vectors (N, D) as PostgreSQL keeps them, and Qdrant compares them."""
    rounded = vectors.astype(np.float16).astype(np.float32)
    units: Vectors = rounded / np.linalg.norm(rounded, axis=1, keepdims=True)
    return units


def check_graph(found: IndexedGraph, vectors: Vectors, k: int, floor: float) -> None:
    """That each row has its k nearest above the floor, nearest first; equals may stand for each other."""
    cosines = as_stored(vectors) @ as_stored(vectors).T
    np.fill_diagonal(cosines, -1.0)
    cosines[cosines <= floor] = floor
    best = -np.sort(-cosines, axis=1)[:, :k]
    graph = found.graph
    assert graph.neighbours.dtype == np.int32
    assert graph.similarities.dtype == np.float32
    np.testing.assert_allclose(graph.similarities, best, atol=1e-5)
    there = graph.neighbours != MISSING
    np.testing.assert_array_equal(there, graph.similarities > floor)
    rows, places = np.nonzero(there)
    np.testing.assert_allclose(
        cosines[rows, graph.neighbours[rows, places]], graph.similarities[rows, places], atol=1e-5
    )


async def test_the_groups_are_those_of_the_local_graph(base: Foundation, index: FaceIndex) -> None:
    made = generate_faces(2500, seed=0)
    seeded = await seed_indexed(base, made.vectors, qualities=made.quality.tolist())
    told: list[tuple[int, int]] = []

    async def tell(done: int, total: int) -> None:
        told.append((done, total))

    found = await find_neighbours_in_qdrant(
        index,
        model_of(made.vectors),
        UNASSIGNED,
        seeded.face_ids,
        k=32,
        floor=ARCFACE_THRESHOLDS.knn_floor,
        max_missing=0,
        told=tell,
    )
    assert found.missing == 0
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, 2500), (2500, 2500))
    check_graph(found, made.vectors, 32, ARCFACE_THRESHOLDS.knn_floor)

    def group(graph: IndexedGraph | None) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        request = GroupingRequest(
            as_stored(made.vectors),
            np.arange(2500),
            made.quality,
            graph=graph.graph if graph else None,
            pack_thresholds=ARCFACE_THRESHOLDS,
        )
        return separate_noise(group_faces(request, _ignore_progress, lambda: False).labels)

    assert adjusted_rand_score(group(None), group(found)) >= 0.98


def _ignore_progress(progress: Progress) -> None:
    """Progress nobody watches."""


async def test_only_faces_of_the_run_are_neighbours(base: Foundation, index: CountingIndex) -> None:
    """Others fill the first places of every answer, so more is asked for until the row is full."""
    vectors = crowd(60, 20)
    seeded = await seed_indexed(base, vectors)
    await seed_indexed(base, vectors, library_id="elsewhere")
    rows = np.arange(0, 80, 3)
    found = await find_neighbours_in_qdrant(
        index,
        model_of(vectors),
        UNASSIGNED,
        [seeded.face_ids[row] for row in rows],
        k=6,
        floor=0.3,
        max_missing=0,
        told=ignore,
        sizes=SMALL,
    )
    check_graph(found, vectors[rows], 6, 0.3)
    assert index.asked > len(rows)


async def test_rows_are_in_the_order_asked_for(base: Foundation, index: FaceIndex) -> None:
    vectors = random_vectors(40)
    seeded = await seed_indexed(base, vectors)
    order = np.random.default_rng(0).permutation(40)
    found = await find_neighbours_in_qdrant(
        index,
        model_of(vectors),
        UNASSIGNED,
        [seeded.face_ids[row] for row in order],
        k=5,
        floor=-1.0,
        max_missing=0,
        told=ignore,
        sizes=SMALL,
    )
    check_graph(found, vectors[order], 5, -1.0)


async def test_a_selection_by_time_and_quality_is_the_index_s_too(base: Foundation, index: CountingIndex) -> None:
    vectors = crowd(30)
    seeded = await seed_indexed(base, vectors, qualities=[0.1 if row % 2 else 0.9 for row in range(30)])
    first = datetime(2020, 1, 1, tzinfo=UTC)
    where = FaceFilter(
        "default",
        unassigned=True,
        min_quality=0.5,
        captured_from=first + timedelta(days=4),
        captured_before=first + timedelta(days=24),
    )
    rows = np.arange(4, 24, 2)
    ids = [seeded.face_ids[row] for row in rows]
    assert await index.find_present(MODEL, seeded.face_ids, where) == set(ids)
    found = await find_neighbours_in_qdrant(
        index, model_of(vectors), where, ids, k=9, floor=0.0, max_missing=0, told=ignore
    )
    check_graph(found, vectors[rows], 9, 0.0)
    assert index.asked == len(rows)


async def test_faces_qdrant_does_not_show_are_refused_or_left_alone(base: Foundation, index: CountingIndex) -> None:
    vectors = crowd(20)
    seeded = await seed_indexed(base, vectors[:17])
    late = await seed_faces(base, vectors[17:])
    ids = [*seeded.face_ids, *late.face_ids]

    async def find(max_missing: int) -> IndexedGraph:
        return await find_neighbours_in_qdrant(
            index, model_of(vectors), UNASSIGNED, ids, k=4, floor=0.0, max_missing=max_missing, told=ignore
        )

    with pytest.raises(PreconditionFailed) as refused:
        await find(2)
    assert refused.value.reason is Reason.EMBEDDINGS_MISSING
    assert refused.value.metadata == {"missing": "3", "faces": "20"}
    assert index.asked == 0
    found = await find(3)
    assert found.missing == 3
    assert (found.graph.neighbours[17:] == MISSING).all()
    assert found.graph.neighbours.max() < 17
    assert (found.graph.neighbours[:17] != MISSING).all()
    await relay_all(base)
    check_graph(await find(0), vectors, 4, 0.0)


async def test_a_face_that_qdrant_still_shows_as_assigned_is_missing(base: Foundation, index: FaceIndex) -> None:
    vectors = crowd(10)
    seeded = await seed_indexed(base, vectors)
    await base.qdrant.set_payload(base.collections.faces(MODEL), {"assigned": True}, [str(seeded.face_ids[3])])
    found = await find_neighbours_in_qdrant(
        index, model_of(vectors), UNASSIGNED, seeded.face_ids, k=9, floor=0.0, max_missing=1, told=ignore
    )
    assert found.missing == 1
    assert 3 not in found.graph.neighbours
    assert (found.graph.neighbours[3] == MISSING).all()


async def test_without_a_collection_every_face_is_missing(base: Foundation, index: FaceIndex) -> None:
    vectors = crowd(5)
    seeded = await seed_faces(base, vectors, with_collections=False)
    with pytest.raises(PreconditionFailed) as refused:
        await find_neighbours_in_qdrant(
            index, model_of(vectors), UNASSIGNED, seeded.face_ids, k=4, floor=0.0, max_missing=4, told=ignore
        )
    assert refused.value.metadata["missing"] == "5"


async def test_a_matcher_s_space_is_refused(base: Foundation, index: CountingIndex) -> None:
    vectors = crowd(5)
    seeded = await seed_indexed(base, vectors)
    space = LearntSpace(Projection(np.eye(64, 8, dtype=np.float32)), Strangers(0.0, 0.1), Strangers(0.0, 0.2))
    with pytest.raises(PreconditionFailed) as refused:
        await find_neighbours_in_qdrant(
            index, model_of(vectors, space), UNASSIGNED, seeded.face_ids, k=4, floor=0.0, max_missing=0, told=ignore
        )
    assert refused.value.reason is Reason.MODEL_MISMATCH
    assert index.asked == 0


async def test_a_paused_graph_goes_on_from_its_last_part(
    base: Foundation, index: CountingIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_graph, "PART_ROWS", 20)
    vectors = random_vectors(90)
    seeded = await seed_indexed(base, vectors)

    async def pause(done: int, total: int) -> None:
        if done >= 48:
            raise Stopped

    async def find(told: qdrant_graph.Told, k: int = 5) -> IndexedGraph:
        return await find_neighbours_in_qdrant(
            index,
            model_of(vectors),
            UNASSIGNED,
            seeded.face_ids,
            k=k,
            floor=-1.0,
            max_missing=0,
            told=told,
            checkpoint=tmp_path / "graph",
            sizes=QuerySizes(batch=2, calls=2),
        )

    with pytest.raises(Stopped):
        await find(pause)
    assert index.asked == 48
    check_graph(await find(ignore), vectors, 5, -1.0)
    assert index.asked == 48 + 50
    check_graph(await find(ignore, k=6), vectors, 6, -1.0)
    assert index.asked == 48 + 50 + 90


async def test_a_face_deleted_meanwhile_has_no_neighbours(base: Foundation, index: FaceIndex) -> None:
    vectors = crowd(30)
    seeded = await seed_indexed(base, vectors)
    gone = [str(face_id) for face_id in seeded.face_ids[20:22]]

    async def delete_points(done: int, total: int) -> None:
        if done == 14:
            await base.qdrant.delete(base.collections.faces(MODEL), models.PointIdsList(points=gone), wait=True)

    found = await find_neighbours_in_qdrant(
        index,
        model_of(vectors),
        UNASSIGNED,
        seeded.face_ids,
        k=3,
        floor=0.0,
        max_missing=0,
        told=delete_points,
        sizes=SMALL,
    )
    lonely = np.flatnonzero((found.graph.neighbours == MISSING).all(axis=1))
    assert lonely.tolist() == [20, 21]


async def test_no_faces(index: FaceIndex) -> None:
    found = await find_neighbours_in_qdrant(
        index, model_of(crowd(1)), UNASSIGNED, [], k=3, floor=0.0, max_missing=0, told=ignore
    )
    assert found.graph.neighbours.shape == (0, 3)
