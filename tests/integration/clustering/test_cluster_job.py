"""ClusterFaces from the call to the rows, over real gRPC, PostgreSQL, Valkey and Qdrant."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import select

from bench.embeddings import Shares
from kith.clustering.v1 import clusters_pb2
from kith.jobs.v1 import jobs_pb2
from shared.db.tables_clustering import clusters
from shared.errors import InvalidRequest
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, crowd, seed_library
from tests.integration.library import MODEL, seed_faces

CLEAN = Shares(blob=0.0)


async def clusters_of(kith: Kith) -> dict[UUID, str]:
    """Which cluster each grouped face is in, as GetCluster tells."""
    found = {}
    for cluster in await kith.list_clusters():
        for member in await kith.members(cluster.id):
            found[UUID(member.face_id)] = cluster.id
    return found


async def test_groups_are_the_people(kith: Kith, base: Foundation) -> None:
    library = await seed_library(base, 600, shares=CLEAN)
    job = await kith.cluster()
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
    result = dict(job.result)
    noise = result["noise"]
    assert isinstance(noise, float)
    found = await kith.list_clusters()
    members = await clusters_of(kith)
    assert library.pairwise_f1(members) >= 0.9
    assert result["faces"] == 600 == job.progress.total == job.progress.done
    assert result["clusters"] == len(found)
    assert result["clustered"] == len(members) == 600 - noise
    assert [cluster.face_count for cluster in found] == sorted((c.face_count for c in found), reverse=True)
    assert sorted(cluster.number for cluster in found) == list(range(1, len(found) + 1))
    assert all(0.3 < cluster.cohesion <= 1.0 and cluster.cover_face_id for cluster in found)
    run = (await kith.clusters.ListClusterRuns(clusters_pb2.ListClusterRunsRequest())).runs[0]
    assert (run.id, run.job_id) == (result["run_id"], job.id)
    assert (run.faces, run.clusters, run.noise, run.kept) == (600, len(found), noise, 0)
    assert run.model_version == MODEL
    assert run.thresholds["merge"] == pytest.approx(0.55)
    assert {"read", "form", "merge"} <= set(run.seconds)


@pytest.mark.usefixtures("grouping_here")
async def test_ids_and_numbers_stay_when_faces_are_added(kith: Kith, base: Foundation) -> None:
    await seed_faces(base, crowd(12, 8, 5))
    await kith.cluster()
    before = {cluster.id: cluster for cluster in await kith.list_clusters()}
    # Four more of the first person, and somebody new.
    await seed_faces(base, crowd(12, 8, 5)[:4])
    await seed_faces(base, crowd(6, seed=1))
    job = await kith.cluster()
    after = {cluster.id: cluster for cluster in await kith.list_clusters()}
    assert dict(job.result)["clusters"] == 4
    assert set(before) < set(after)
    assert {cluster.number for key, cluster in after.items() if key not in before} == {4}
    grown = [key for key in before if after[key].face_count != before[key].face_count]
    assert [after[key].face_count for key in grown] == [16]
    assert after[grown[0]].etag != before[grown[0]].etag
    assert all(after[key].etag == before[key].etag for key in before if key not in grown)
    assert all(after[key].run_id == before[key].run_id for key in before if key not in grown)
    assert after[grown[0]].run_id == dict(job.result)["run_id"]


@pytest.mark.usefixtures("grouping_here")
async def test_assigned_faces_are_in_no_cluster(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(10, 6))
    anna = await kith.create("Anna")
    await kith.assign(seeded.face_ids[:7], anna)
    await kith.cluster()
    assert sorted(cluster.face_count for cluster in await kith.list_clusters()) == [3, 6]
    assert not set(await clusters_of(kith)) & set(seeded.face_ids[:7])
    # Assigned after the run: gone from the lists at once, and the whole cluster with its last face.
    await kith.assign(seeded.face_ids[7:9], anna)
    assert sorted(cluster.face_count for cluster in await kith.list_clusters()) == [1, 6]
    await kith.assign(seeded.face_ids[9:10], anna)
    assert [cluster.face_count for cluster in await kith.list_clusters()] == [6]


@pytest.mark.usefixtures("grouping_here")
async def test_a_library_without_faces_or_model_ends_its_clusters(kith: Kith, base: Foundation) -> None:
    empty = await kith.cluster()
    assert empty.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert {key: value for key, value in dict(empty.result).items() if key != "run_id"} == {
        "faces": 0,
        "clusters": 0,
        "clustered": 0,
        "noise": 0,
    }
    seeded = await seed_faces(base, crowd(5))
    await kith.cluster()
    assert len(await kith.list_clusters()) == 1
    await kith.assign(seeded.face_ids, await kith.create("Anna"))
    assert dict((await kith.cluster()).result)["faces"] == 0
    async with base.database.transaction() as tx:
        assert await tx.rows(select(clusters)) == []


@pytest.mark.usefixtures("grouping_here")
async def test_faces_outside_the_span_keep_their_clusters(kith: Kith, base: Foundation) -> None:
    # One photo a day from 1 January 2020: Anna's 6 photos, then Bert's 6.
    await seed_faces(base, crowd(6, 6))
    await kith.cluster()
    before = {cluster.id: cluster.etag for cluster in await kith.list_clusters()}
    request = clusters_pb2.ClusterFacesRequest(min_cluster_size=7)
    request.captured.start.FromJsonString("2020-01-07T00:00:00Z")
    job = await kith.cluster(captured=request.captured, min_cluster_size=7)
    assert dict(job.result)["faces"] == 6
    after = {cluster.id: cluster.etag for cluster in await kith.list_clusters()}
    assert len(after) == 1
    assert after.items() < before.items()


@pytest.mark.usefixtures("grouping_here")
@pytest.mark.parametrize("algorithm", ["DBSCAN", "AGGLOMERATIVE"])
async def test_other_algorithms(kith: Kith, base: Foundation, algorithm: str) -> None:
    await seed_faces(base, crowd(9, 7, 4))
    job = await kith.cluster(algorithm=f"CLUSTER_ALGORITHM_{algorithm}")
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
    assert [cluster.face_count for cluster in await kith.list_clusters()] == [9, 7, 4]


async def test_requests_that_cannot_be(kith: Kith) -> None:
    with pytest.raises(InvalidRequest):
        await kith.cluster(min_quality=1.5)
    with pytest.raises(InvalidRequest):
        await kith.cluster(min_cluster_size=1)
