"""What a caller can choose for a run, and what the run says of it afterwards."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import delete, func, select

from kith.clustering.v1 import clusters_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from shared.db.tables_detection import face_embeddings
from shared.db.tables_persons import assignments
from shared.db.tables_shared import jobs
from shared.errors import InvalidRequest, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.jobs.asking import ASK_PAIRS
from tests.integration.clustering.kit import Kith, crowd, relayed
from tests.integration.library import random_vectors, seed_faces


async def run(kith: Kith, **fields: object) -> pb.ClusterRun:
    job = await kith.cluster(**fields)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    return (await kith.clusters.ListClusterRuns(pb.ListClusterRunsRequest())).runs[0]


@pytest.mark.usefixtures("grouping_here")
async def test_a_run_says_what_was_in_force_and_what_came_of_it(kith: Kith, base: Foundation) -> None:
    await seed_faces(base, np.concatenate([crowd(6, 5, 4), random_vectors(3, 64)]))
    said = pb.GroupingParameters(neighbours=16, min_samples=2, seed_quality=0.1, merge=0.62, veto_share=0.2)
    found = await run(kith, parameters=said, min_cluster_size=4)
    used = found.parameters
    assert (used.neighbours, used.min_samples, used.merge) == (16, 2, 0.62)
    assert used.seed_quality == pytest.approx(0.1)
    assert used.veto_share == pytest.approx(0.2)
    assert (used.link_floor, used.attach, used.attach_margin) == (0.40, 0.35, 0.05)
    assert (used.graph_source, used.graph_method) == (pb.GRAPH_SOURCE_LOCAL, pb.GRAPH_METHOD_EXACT)
    assert not used.first_groups_only
    assert (found.scope, found.min_cluster_size, found.missing) == (pb.CLUSTER_SCOPE_FULL, 4, 0)
    assert (found.created, found.kept, found.grown, found.split, found.merged, found.gone) == (3, 0, 0, 0, 0, 0)
    metrics = dict(found.metrics)
    assert (metrics["largest"], metrics["median_size"]) == (6, 5)
    assert metrics["noise_share"] == pytest.approx(3 / 18)
    assert metrics["cohesion"] > 0.9
    assert metrics["silhouette"] > 0.8
    assert metrics["validity"] > 0.5
    assert metrics["peak_mb"] > 0
    (largest, *_) = await kith.list_clusters()
    assert largest.medoid_face_id in {member.face_id for member in await kith.members(largest.id)}
    assert largest.separation > 0.5


@pytest.mark.usefixtures("grouping_here")
async def test_first_groups_alone_are_neither_merged_nor_given_strays(kith: Kith, base: Foundation) -> None:
    await seed_faces(base, crowd(6, 5))
    found = await run(kith, parameters=pb.GroupingParameters(first_groups_only=True))
    assert found.parameters.first_groups_only
    assert "attach" not in found.seconds


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"neighbours": 3}, "neighbours"),
        ({"neighbours": 257}, "neighbours"),
        ({"min_samples": 0}, "min_samples"),
        ({"min_samples": 33}, "min_samples"),
        ({"seed_quality": 1.5}, "seed_quality"),
        ({"link_floor": -1.5}, "link_floor"),
        ({"attach_margin": -0.1}, "attach_margin"),
        ({"veto_share": 2}, "veto_share"),
        ({"graph_source": 9}, "graph_source"),
    ],
)
async def test_parameters_out_of_range_are_refused_by_name(kith: Kith, said: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await kith.cluster(parameters=pb.GroupingParameters(**said))
    assert refused.value.violations[0].field == f"parameters.{field}"


@pytest.mark.usefixtures("grouping_here")
async def test_faces_without_an_embedding_are_counted_and_many_of_them_refused(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(6, 6, 6, 6))
    async with base.database.transaction() as tx:
        await tx.execute(delete(face_embeddings).where(face_embeddings.c.face_id == seeded.face_ids[0]))
    assert (await run(kith)).missing == 1
    async with base.database.transaction() as tx:
        await tx.execute(delete(face_embeddings).where(face_embeddings.c.face_id == seeded.face_ids[1]))
    with pytest.raises(PreconditionFailed) as refused:
        await kith.cluster()
    assert refused.value.reason is Reason.EMBEDDINGS_MISSING
    assert refused.value.metadata == {"missing": "2", "faces": "24"}
    found = await run(kith, allow_missing_embeddings=True)
    assert (found.missing, found.faces) == (2, 22)


@pytest.mark.usefixtures("grouping_here")
async def test_qdrant_may_find_the_neighbours(kith: Kith, base: Foundation) -> None:
    await seed_faces(base, crowd(9, 7, 5))
    await relayed(base)
    found = await run(kith, parameters=pb.GroupingParameters(graph_source=pb.GRAPH_SOURCE_QDRANT))
    assert found.parameters.graph_source == pb.GRAPH_SOURCE_QDRANT
    assert not found.parameters.graph_method
    assert [cluster.face_count for cluster in await kith.list_clusters()] == [9, 7, 5]


@pytest.mark.usefixtures("grouping_here")
async def test_qdrant_that_lags_behind_is_not_taken_for_the_truth(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(9, 7, 5))
    await relayed(base)
    async with base.database.transaction() as tx:
        version = await tx.scalar(select(face_embeddings.c.model_version).limit(1))
    await base.qdrant.delete(base.collections.faces(version), list(seeded.face_ids[:5]), wait=True)
    job = await kith.cluster(parameters=pb.GroupingParameters(graph_source=pb.GRAPH_SOURCE_QDRANT))
    assert (job.state, job.error.reason) == (jobs_pb2.JOB_STATE_FAILED, "EMBEDDINGS_MISSING")


@pytest.mark.usefixtures("grouping_here")
async def test_known_people_get_their_faces_before_the_rest_is_grouped(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(9, 7, 5))
    anna = await kith.create("Anna")
    await kith.assign(seeded.face_ids[:4], anna)
    found = await run(kith, mode=pb.CLUSTER_MODE_DUAL)
    assert (found.assigned, found.suggested, found.faces) == (5, 0, 12)
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(assignments.c.face_id, assignments.c.person_id, assignments.c.source))
        asked = await tx.scalar(select(func.count()).select_from(jobs).where(jobs.c.kind == ASK_PAIRS))
    assert {row.face_id: row.source for row in rows} == {
        **dict.fromkeys(seeded.face_ids[:4], "HUMAN"),
        **dict.fromkeys(seeded.face_ids[4:9], "MACHINE"),
    }
    assert {row.person_id for row in rows} == {UUID(anna)}
    assert asked == 0
    assert [cluster.face_count for cluster in await kith.list_clusters()] == [7, 5]
    assert found.seconds["match"] > 0
