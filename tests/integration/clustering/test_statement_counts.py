"""The number of statements and searches does not grow with the number of faces, except by batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from kith.clustering.v1 import clusters_pb2
from kith.jobs.v1 import jobs_pb2
from services.clustering.adapters.unassigned import IndexedFaces
from services.clustering.domain.averaging import compute_stale, store_computed
from services.clustering.domain.dismissing import DismissCluster, dismiss_cluster
from services.clustering.domain.model import ClusterState
from services.clustering.domain.ports import NearFace
from services.clustering.domain.searching import SearchByCentroid, search_by_centroid
from services.clustering.domain.splitting import ClusterCutter, SplitCluster, find_parts, store_parts
from services.clustering.repository.clusters import get_cluster, list_clusters
from services.clustering.repository.unassigned import find_active_model
from services.clustering.server import start as start_clustering
from services.clustering.wiring import build_deps, build_handlers
from services.persons.server import start as start_persons
from shared.db.engine import Database
from shared.db.pagination import read_page_request
from shared.foundation import Foundation
from shared.jobs.execution import SliceExecutor
from shared.vectors.faces import FaceIndex
from tests.integration.clustering.kit import Kith, crowd, relayed, seed_cluster, start_kith
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.library import random_vectors, seed_faces

# Heartbeats, progress and notifications come by time, not by face.
BY_TIME = ("jobs", "job_slices", "pg_notify")


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is sent to PostgreSQL for the faces' sake inside the block; complete when it ends."""
    texts: list[str] = []
    with recording_statements(database) as sent:
        yield texts
    texts += [statement.text for statement in sent if not any(word in statement.text for word in BY_TIME)]


@dataclass
class CountedIndex:
    """Counts the calls to Qdrant."""

    inner: IndexedFaces
    calls: list[int] = field(default_factory=list)

    async def find_nearest(self, *arguments: Any, **options: Any) -> list[list[NearFace]]:
        self.calls.append(len(arguments[2]))
        return await self.inner.find_nearest(*arguments, **options)


@pytest.fixture
async def servers(running: Running) -> Kith:
    """The servers without a worker: the test itself runs the jobs."""
    return Kith(await running.server("persons", start_persons), await running.server("clustering", start_clustering))


async def run_job(kith: Kith, base: Foundation, stack: AsyncExitStack) -> list[str]:
    """Start a run, do it here, and answer with its statements."""
    started = await kith.clusters.ClusterFaces(clusters_pb2.ClusterFacesRequest())
    executor = SliceExecutor(build_handlers(base, stack), base.database, base.clock, base.ids, base.settings.jobs)
    with statements(base.database) as sent:
        await executor.run_slice(UUID(started.job.id), 0)
    job = (await kith.jobs.GetJob(jobs_pb2.GetJobRequest(job_id=started.job.id))).job
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    return sent


@pytest.mark.usefixtures("grouping_here")
async def test_a_run(servers: Kith, base: Foundation, stack: AsyncExitStack) -> None:
    await seed_faces(base, crowd(12, 8, 5))
    few = await run_job(servers, base, stack)
    # Four times the faces and clusters, all of them new.
    await seed_faces(base, crowd(12, 8, 5, 12, 8, 5, 12, 8, 5, seed=1))
    many = await run_job(servers, base, stack)
    assert len(few) == len(many)
    assert len(few) <= 24
    assert len(await servers.list_clusters()) == 12


async def name_people(kith: Kith, base: Foundation, people: int, faces: int, seed: int) -> list[UUID]:
    """People with half of their faces assigned."""
    seeded = await seed_faces(base, crowd(*[faces] * people, seed=seed))
    found = []
    for index in range(people):
        person_id = await kith.create(f"Person {index}")
        own = seeded.face_ids[index * faces : (index + 1) * faces]
        await kith.assign(own[::2], person_id)
        found.append(UUID(person_id))
    return found


async def compute(base: Foundation, person_ids: Sequence[UUID]) -> list[str]:
    with statements(base.database) as sent:
        async with base.database.transaction() as tx:
            model = await find_active_model(tx, "default")
        assert model is not None
        computed = await compute_stale(base.database, model, person_ids)
        async with base.database.transaction() as tx:
            assert await store_computed(tx, build_deps(base), "default", model, computed) == len(person_ids)
    return sent


async def test_centroids_of_many_people(servers: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    few = await compute(base, await name_people(servers, base, 2, 6, seed=1))
    more = await name_people(servers, base, 8, 24, seed=2)
    assert len(await compute(base, more)) == len(few) <= 15
    # In batches of two people each there are two statements for every batch.
    monkeypatch.setattr("services.clustering.domain.averaging.FACES_AT_ONCE", 24)
    again = await name_people(servers, base, 8, 24, seed=3)
    assert len(await compute(base, again)) == len(few) + 3 * 2


async def test_a_search(running: Running, base: Foundation) -> None:
    kith = await start_kith(running)
    sent, calls = [], []
    for faces in (8, 32):
        (person_id,) = await name_people(kith, base, 1, faces, seed=faces)
        await relayed(base)
        index = CountedIndex(IndexedFaces(FaceIndex(base.qdrant, base.collections)))
        command = SearchByCentroid("default", person_id, 500, None, 0.0)
        with statements(base.database) as made:
            matches = await search_by_centroid(base.database, build_deps(base), index, command)
        assert len(matches) >= faces // 2
        sent.append(len(made))
        calls.append(index.calls)
    assert sent[0] == sent[1] <= 20
    assert [len(made) for made in calls] == [1, 1]


async def test_cutting_and_putting_away_a_cluster(base: Foundation) -> None:
    deps = build_deps(base)
    costs = []
    for size in (8, 80):
        face_ids = (await seed_faces(base, crowd(size, size, seed=size))).face_ids
        cluster_id = await seed_cluster(base, face_ids)
        async with base.database.transaction() as tx:
            etag = (await get_cluster(tx, "default", cluster_id)).etag
        with statements(base.database) as cut:
            command = SplitCluster("default", cluster_id, etag, target_count=size // 2)
            parting = await find_parts(base.database, deps, ClusterCutter(), command)
            async with base.database.transaction() as tx:
                made = await store_parts(tx, deps, command, parting)
        assert len(made) == size // 2
        with statements(base.database) as put_away:
            async with base.database.transaction() as tx:
                await dismiss_cluster(tx, deps, DismissCluster("default", made[0].cluster_id, made[0].etag, False))
        costs.append((len(cut), len(put_away)))
    assert costs[0] == costs[1]
    assert costs[0] <= (25, 5)


async def test_a_page_of_clusters(base: Foundation) -> None:
    face_ids = (await seed_faces(base, random_vectors(60))).face_ids
    for start in range(0, 60, 3):
        await seed_cluster(base, face_ids[start : start + 3])
    for size in (2, 20):
        page = read_page_request(size, "", default=50, maximum=500, filters=())
        with statements(base.database) as sent:
            async with base.database.transaction() as tx:
                found = await list_clusters(tx, "default", page, [ClusterState.ACTIVE], 0)
        assert (len(found.items), len(sent)) == (size, 1)
