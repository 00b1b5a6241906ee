"""INCREMENTAL runs: new faces are placed beside the clusters there are."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import delete, select, update

from kith.clustering.v1 import clusters_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from services.clustering.domain import increment_run
from shared.db.tables_clustering import cluster_members, cluster_runs
from shared.db.tables_detection import face_embeddings, models
from shared.db.tables_detection import faces as face_table
from shared.errors import InvalidRequest, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, crowd
from tests.integration.library import seed_faces

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
INCREMENTAL = pb.CLUSTER_SCOPE_INCREMENTAL
pytestmark = pytest.mark.usefixtures("grouping_here")


async def read_members(base: Foundation) -> dict[UUID, str]:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(cluster_members.c.face_id, cluster_members.c.cluster_id))
    return {row.face_id: row.cluster_id for row in rows}


async def last_run(kith: Kith) -> pb.ClusterRun:
    return (await kith.clusters.ListClusterRuns(pb.ListClusterRunsRequest())).runs[0]


async def succeed(kith: Kith, **fields: object) -> pb.ClusterRun:
    job = await kith.cluster(**fields)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    return await last_run(kith)


async def seed(base: Foundation, vectors: NDArray[np.float32], rows: slice) -> list[UUID]:
    return (await seed_faces(base, vectors[rows])).face_ids


async def test_new_faces_join_found_and_stay_alone(kith: Kith, base: Foundation) -> None:
    """Six of Anna's and five of Bert's are known; two of Anna's come, four of Carla's, and a stranger."""
    vectors = crowd(8, 5, 4, 1)
    anna = await seed(base, vectors, slice(0, 6))
    bert = await seed(base, vectors, slice(8, 13))
    full = await succeed(kith)
    before = await read_members(base)
    new = [*await seed(base, vectors, slice(6, 8)), *await seed(base, vectors, slice(13, 18))]
    run = await succeed(kith, scope=INCREMENTAL)
    after = await read_members(base)
    assert {face_id: after[face_id] for face_id in before} == before
    assert {after[face_id] for face_id in new[:2]} == {before[anna[0]]}
    (carla,) = {after[face_id] for face_id in new[2:6]}
    assert carla not in {before[anna[0]], before[bert[0]]}
    assert new[6] not in after
    assert (run.scope, run.faces, run.clustered, run.noise) == (INCREMENTAL, 7, 6, 1)
    assert (run.kept, run.grown, run.created, run.merged, run.gone) == (2, 1, 1, 0, 0)
    assert dict(run.thresholds) == dict(full.thresholds)
    (grown, _, _) = sorted(await kith.list_clusters(), key=lambda cluster: -cluster.face_count)
    assert (grown.id, grown.face_count, grown.run_id) == (before[anna[0]], 8, run.id)
    # Only the stranger is looked at again: for some minutes a face in no cluster counts as new.
    again = await succeed(kith, scope=INCREMENTAL)
    assert (again.faces, await read_members(base)) == (1, after)


async def test_a_face_nobody_knew_forms_a_group_with_those_that_come_after(kith: Kith, base: Foundation) -> None:
    vectors = crowd(5, 3)
    await seed(base, vectors, slice(0, 5))
    lonely = await seed(base, vectors, slice(5, 6))
    await succeed(kith)
    others = await seed(base, vectors, slice(6, 8))
    run = await succeed(kith, scope=INCREMENTAL)
    members = await read_members(base)
    assert len({members[face_id] for face_id in [*lonely, *others]}) == 1
    # The lonely one is looked at again too: for some minutes a face counts as new.
    assert (run.created, run.faces) == (1, 3)


async def test_a_face_between_them_makes_two_clusters_one(kith: Kith, base: Foundation) -> None:
    """Two halves of a person too far apart to be one, until faces lie between them."""
    random = np.random.default_rng(0)
    one, two = np.linalg.qr(random.standard_normal((64, 2)))[0].T

    def around(angle: float, count: int, spread: float = 0.1) -> NDArray[np.float32]:
        centre = np.cos(angle) * one + np.sin(angle) * two
        faces = centre + spread * random.standard_normal((count, 64)) / 8
        return np.asarray(faces / np.linalg.norm(faces, axis=1, keepdims=True), dtype=np.float32)

    left, right = np.radians(0), np.radians(62)
    first = (await seed_faces(base, around(left, 5))).face_ids
    second = (await seed_faces(base, around(right, 4))).face_ids
    await succeed(kith)
    before = await read_members(base)
    assert before[first[0]] != before[second[0]]
    await seed_faces(base, around(np.radians(31), 12))
    run = await succeed(kith, scope=INCREMENTAL)
    after = await read_members(base)
    assert {after[face_id] for face_id in [*first, *second]} == {before[first[0]]}
    assert (run.merged, run.gone) == (1, 1)


async def test_who_was_put_away_gains_faces_and_stays_away(kith: Kith, base: Foundation) -> None:
    vectors = crowd(7, 5)
    strangers = await seed(base, vectors, slice(0, 5))
    await seed(base, vectors, slice(7, 12))
    await succeed(kith)
    cluster_id = (await read_members(base))[strangers[0]]
    await kith.dismiss(cluster_id)
    new = await seed(base, vectors, slice(5, 7))
    await succeed(kith, scope=INCREMENTAL)
    members = await read_members(base)
    assert {members[face_id] for face_id in new} == {cluster_id}
    assert (await kith.get_cluster(cluster_id)).state == pb.CLUSTER_STATE_DISMISSED


async def test_it_needs_a_run_to_build_on(kith: Kith, base: Foundation) -> None:
    await seed_faces(base, crowd(5))
    with pytest.raises(PreconditionFailed) as refused:
        await kith.cluster(scope=INCREMENTAL)
    assert refused.value.reason is Reason.RUN_REQUIRED
    # One that looked at a part only is none.
    request = pb.ClusterFacesRequest(min_quality=0.1)
    await kith.ended((await kith.clusters.ClusterFaces(request)).job.id)
    with pytest.raises(PreconditionFailed):
        await kith.cluster(scope=INCREMENTAL)
    await succeed(kith)
    await succeed(kith, scope=INCREMENTAL)
    async with base.database.transaction() as tx:
        await tx.execute(update(models).values(model_version="next_model"))
        await tx.execute(update(face_embeddings).values(model_version="next_model"))
    with pytest.raises(PreconditionFailed) as refused:
        await kith.cluster(scope=INCREMENTAL)
    assert refused.value.metadata["model_version"] == "next_model"


async def test_runs_of_the_version_before_are_not_built_on(kith: Kith, base: Foundation) -> None:
    await seed_faces(base, crowd(5))
    await succeed(kith)
    async with base.database.transaction() as tx:
        await tx.execute(update(cluster_runs).values(read_at=None, parameters={}))
    with pytest.raises(PreconditionFailed):
        await kith.cluster(scope=INCREMENTAL)


async def test_parameters_are_those_of_the_full_run(kith: Kith, base: Foundation) -> None:
    await seed_faces(base, crowd(5))
    said = pb.GroupingParameters(neighbours=16, merge=0.6, min_samples=2)
    full = await succeed(kith, parameters=said, algorithm=pb.CLUSTER_ALGORITHM_DBSCAN, min_cluster_size=4)
    await seed_faces(base, crowd(5, seed=1))
    run = await succeed(kith, scope=INCREMENTAL)
    assert (run.algorithm, run.min_cluster_size) == (pb.CLUSTER_ALGORITHM_DBSCAN, 4)
    assert run.parameters.neighbours == full.parameters.neighbours == 16
    assert run.parameters.merge == full.parameters.merge == 0.6
    for fields in ({"parameters": said}, {"algorithm": pb.CLUSTER_ALGORITHM_DBSCAN}, {"min_cluster_size": 4}):
        with pytest.raises(InvalidRequest) as refused:
            await kith.cluster(scope=INCREMENTAL, **fields)
        assert [violation.field for violation in refused.value.violations] == list(fields)


async def test_a_cluster_that_ended_meanwhile_takes_nobody_along(kith: Kith, base: Foundation) -> None:
    vectors = crowd(7)
    known = await seed(base, vectors, slice(0, 5))
    await succeed(kith)
    new = await seed(base, vectors, slice(5, 7))
    # As if somebody had labelled it: its faces are in no cluster any more.
    async with base.database.transaction() as tx:
        await tx.execute(delete(cluster_members).where(cluster_members.c.face_id.in_(known)))
    run = await succeed(kith, scope=INCREMENTAL)
    members = await read_members(base)
    # They were ungrouped faces near the new ones then, and are one group with them.
    assert len({members[face_id] for face_id in [*known, *new]}) == 1
    assert run.created == 1


async def test_a_run_that_found_no_face_is_not_built_on(kith: Kith, base: Foundation) -> None:
    known = await seed(base, crowd(5), slice(0, 5))
    await kith.assign(known, await kith.create("Anna"))
    await succeed(kith)
    await seed(base, crowd(5, seed=1), slice(0, 5))
    with pytest.raises(PreconditionFailed) as refused:
        await kith.cluster(scope=INCREMENTAL)
    assert refused.value.reason is Reason.RUN_REQUIRED


async def test_faces_that_come_back_are_placed_again(kith: Kith, base: Foundation) -> None:
    """Found long before the last run, and nobody's again since."""
    vectors = crowd(7, 5)
    faces = await seed(base, vectors, slice(0, 12))
    async with base.database.transaction() as tx:
        await tx.execute(update(face_table).values(created_at=LONG_AGO, updated_at=LONG_AGO))
    anna = await kith.create("Anna")
    await kith.assign(faces[5:7], anna)
    await succeed(kith)
    before = await read_members(base)
    assert set(before) == {*faces[:5], *faces[7:]}
    for face_id in faces[5:7]:
        await kith.unassign(face_id)
    run = await succeed(kith, scope=INCREMENTAL)
    after = await read_members(base)
    assert {after[face_id] for face_id in faces[5:7]} == {before[faces[0]]}
    assert run.faces == 2


async def test_so_many_that_a_full_run_is_the_shorter_way(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_faces(base, crowd(5))
    await succeed(kith)
    monkeypatch.setattr(increment_run, "MOST_NEW", 3)
    await seed_faces(base, crowd(4, seed=1))
    job = await kith.cluster(scope=INCREMENTAL)
    assert (job.state, job.error.reason) == (jobs_pb2.JOB_STATE_FAILED, "RUN_REQUIRED")
