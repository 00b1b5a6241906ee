"""ListClusters, GetCluster and ListClusterRuns: pages, live members, other libraries."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import update

from kith.clustering.v1 import clusters_pb2
from shared.db.tables_detection import faces
from shared.errors import InvalidRequest, NotFound, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.clustering.kit import Kith, seed_cluster
from tests.integration.library import random_vectors, seed_faces


async def seed_three(base: Foundation) -> tuple[list[UUID], list[str]]:
    """Clusters of 5, 3 and 3 faces."""
    seeded = await seed_faces(base, random_vectors(11), qualities=[0.5, 0.9] + [0.5] * 9)
    ids = seeded.face_ids
    parts = [ids[:5], ids[5:8], ids[8:]]
    return ids, [await seed_cluster(base, part, [0.9, 0.8, 0.7, 0.7, 0.6][: len(part)]) for part in parts]


async def test_clusters_come_largest_first_in_any_page_size(kith: Kith, base: Foundation) -> None:
    _, made = await seed_three(base)
    whole = await kith.list_clusters()
    assert [cluster.face_count for cluster in whole] == [5, 3, 3]
    assert {cluster.id for cluster in whole} == set(made)
    assert [cluster.id for cluster in await kith.list_clusters(page_size=1)] == [cluster.id for cluster in whole]
    assert [cluster.face_count for cluster in await kith.list_clusters(min_faces=4)] == [5]


async def test_figures_are_of_the_live_members(kith: Kith, base: Foundation) -> None:
    ids, made = await seed_three(base)
    cluster = (await kith.list_clusters())[0]
    assert cluster.cohesion == pytest.approx(0.74)
    assert cluster.cover_face_id == str(ids[1])
    assert cluster.first_captured.ToJsonString() == "2020-01-01T00:00:00Z"
    assert cluster.last_captured.ToJsonString() == "2020-01-05T00:00:00Z"
    # The cover is given a person, another face is no face.
    await kith.assign([ids[1]], await kith.create("Anna"))
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == ids[4]).values(state="NOT_A_FACE"))
    changed = (await kith.clusters.GetCluster(clusters_pb2.GetClusterRequest(cluster_id=made[0]))).cluster
    assert changed.face_count == 3
    assert changed.cohesion == pytest.approx((0.9 + 0.7 + 0.7) / 3)
    assert changed.cover_face_id == str(ids[0])
    assert changed.last_captured.ToJsonString() == "2020-01-04T00:00:00Z"
    assert changed.etag != cluster.etag


async def test_members_come_best_first_in_any_page_size(kith: Kith, base: Foundation) -> None:
    ids, made = await seed_three(base)
    # Two are equally sure: those come by id.
    expected = [str(face_id) for face_id in (*ids[:2], *sorted(ids[2:4]), ids[4])]
    for page_size in (0, 1, 2, 5):
        assert [member.face_id for member in await kith.members(made[0], page_size)] == expected
    await kith.assign(ids[1:2], await kith.create("Anna"))
    assert [member.face_id for member in await kith.members(made[0], 2)] == [expected[0], *expected[2:]]


async def test_a_cluster_without_live_members_is_not_there(kith: Kith, base: Foundation) -> None:
    ids, made = await seed_three(base)
    await kith.assign(ids[5:8], await kith.create("Anna"))
    assert made[1] not in {cluster.id for cluster in await kith.list_clusters()}
    with pytest.raises(NotFound):
        await kith.members(made[1])


async def test_tokens_of_other_calls_and_other_libraries(kith: Kith, base: Foundation) -> None:
    _, made = await seed_three(base)
    page = await kith.clusters.ListClusters(clusters_pb2.ListClustersRequest(page_size=1))
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("clustering"):
            await kith.clusters.ListClusters(
                clusters_pb2.ListClustersRequest(page_token=page.next_page_token, min_faces=2)
            )
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID
    with pytest.raises(NotFound):
        async with translate_errors("clustering"):
            await kith.clusters.GetCluster(clusters_pb2.GetClusterRequest(library_id="other", cluster_id=made[0]))
    assert await kith.list_clusters(library_id="other") == []
    runs = await kith.clusters.ListClusterRuns(clusters_pb2.ListClusterRunsRequest(page_size=2))
    rest = await kith.clusters.ListClusterRuns(
        clusters_pb2.ListClusterRunsRequest(page_size=2, page_token=runs.next_page_token)
    )
    ids = [run.id for run in [*runs.runs, *rest.runs]]
    assert len(ids) == 3
    assert ids == sorted(ids, reverse=True)
