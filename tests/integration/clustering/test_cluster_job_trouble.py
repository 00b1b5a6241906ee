"""ClusterFaces when something comes in between: cancel, memory, people who assign, a worker that dies."""

from __future__ import annotations

import multiprocessing
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Table, func, select, update

from kith.clustering.v1 import clusters_pb2
from kith.jobs.v1 import jobs_pb2
from services.clustering import jobs as job_kinds
from services.clustering.grouping.process import group_in_process
from services.clustering.grouping.request import Cancelled, GroupingRequest, GroupingResult, Report
from services.clustering.repository.workspace import Workspace, list_workspaces
from services.clustering.server import start as start_clustering
from services.clustering.sweeping import sweep
from services.clustering.worker import start as start_worker
from services.persons.server import start as start_persons
from shared.config import ClusteringSettings
from shared.db.tables_clustering import cluster_members, cluster_runs, clusters
from shared.db.tables_detection import face_embeddings, models
from shared.db.tables_shared import jobs
from shared.errors import KithError, Reason
from shared.foundation import Foundation
from shared.jobs.execution import SliceRun
from shared.jobs.model import Json, NewJob
from shared.jobs.repository import create_job
from tests.integration.clustering.kit import Kith, crowd, start_kith
from tests.integration.conftest import Running, eventually
from tests.integration.library import random_vectors, seed_faces

Tell = Callable[[float], Awaitable[None]]


async def start_job(kith: Kith) -> str:
    return (await kith.clusters.ClusterFaces(clusters_pb2.ClusterFacesRequest())).job.id


async def count(base: Foundation, table: Table) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).select_from(table))
        return found


async def test_cancelling_stops_the_process_and_stores_nothing(kith: Kith, base: Foundation) -> None:
    await seed_faces(base, random_vectors(1500, 64))
    job_id = await start_job(kith)

    async def grouping() -> bool:
        job = (await kith.jobs.GetJob(jobs_pb2.GetJobRequest(job_id=job_id))).job
        return job.phase == "group" and bool(multiprocessing.active_children())

    await eventually(grouping)
    await kith.jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id))
    job = await kith.ended(job_id)
    assert job.state == jobs_pb2.JOB_STATE_CANCELLED

    async def stopped() -> bool:
        return not multiprocessing.active_children()

    await eventually(stopped)
    assert await count(base, cluster_runs) == await count(base, clusters) == 0


async def test_a_run_that_would_need_too_much_memory_is_refused_and_nothing_begun(
    running: Running, base: Foundation
) -> None:
    clustering = ClusteringSettings(memory_budget_mb=512, small_set=4000)
    running.settings = running.settings.model_copy(update={"clustering": clustering})
    kith = await start_kith(running)
    await seed_faces(base, random_vectors(3700, 16))
    with pytest.raises(KithError) as refused:
        await kith.cluster()
    assert refused.value.reason is Reason.MEMORY_BUDGET
    assert refused.value.metadata["budget_mb"] == "512"
    assert int(refused.value.metadata["needed_mb"]) > 512
    assert "KITH_CLUSTERING_MEMORY_BUDGET_MB" in refused.value.message
    assert await count(base, jobs) == 0


@pytest.mark.usefixtures("grouping_here")
async def test_a_worker_with_less_memory_than_the_server_took_the_call_by_fails_the_job(
    running: Running, base: Foundation
) -> None:
    """And does not wait for memory that nobody will give back."""
    persons = await running.server("persons", start_persons)
    clustering = await running.server("clustering", start_clustering)
    tight = ClusteringSettings(memory_budget_mb=512, small_set=4000)
    running.settings = running.settings.model_copy(update={"clustering": tight})
    await running.worker(start_worker)
    await seed_faces(base, random_vectors(3700, 16))
    job = await Kith(persons, clustering).cluster()
    assert (job.state, job.error.reason) == (jobs_pb2.JOB_STATE_FAILED, "MEMORY_BUDGET")


@pytest.mark.usefixtures("grouping_here")
async def test_faces_that_got_a_person_meanwhile_are_left_out(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded = await seed_faces(base, crowd(8, 4, 4))
    anna = await kith.create("Anna")
    real = job_kinds.group_watched

    async def overtaken(request: GroupingRequest, tell: Tell) -> GroupingResult:
        result = await real(request, tell)
        # Three of the eight, and all but one of the first four.
        await kith.assign([*seeded.face_ids[:3], *seeded.face_ids[8:11]], anna)
        return result

    monkeypatch.setattr(job_kinds, "group_watched", overtaken)
    job = await kith.cluster()
    assert {key: value for key, value in dict(job.result).items() if key != "run_id"} == {
        "faces": 10,
        "clusters": 2,
        "clustered": 9,
        "noise": 1,
    }
    assert [cluster.face_count for cluster in await kith.list_clusters()] == [5, 4]
    assert await count(base, cluster_members) == 9


@pytest.mark.usefixtures("grouping_here")
async def test_a_library_moved_to_another_model_meanwhile_is_grouped_by_that(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_faces(base, crowd(6, 5))
    real = job_kinds.group_watched
    calls = 0

    async def overtaken(request: GroupingRequest, tell: Tell) -> GroupingResult:
        nonlocal calls
        calls += 1
        result = await real(request, tell)
        if calls == 1:
            async with base.database.transaction() as tx:
                await tx.execute(update(models).values(model_version="next_model"))
                await tx.execute(update(face_embeddings).values(model_version="next_model"))
        return result

    monkeypatch.setattr(job_kinds, "group_watched", overtaken)
    job = await kith.cluster()
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    async with base.database.transaction() as tx:
        runs = await tx.rows(select(cluster_runs.c.model_version))
    assert [run.model_version for run in runs] == ["next_model"]
    assert job.progress.done == job.progress.total == 11


class Interrupted(Exception):
    """The worker is gone."""


@pytest.mark.usefixtures("grouping_here")
async def test_a_worker_that_dies_after_storing_does_not_store_twice(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_faces(base, crowd(6, 5))
    real = job_kinds.ClusterFacesJob.run
    answers: list[Json] = []

    async def dies_once(self: job_kinds.ClusterFacesJob, run: SliceRun) -> Json:
        answers.append(await real(self, run))
        if len(answers) == 1:
            raise Interrupted
        return answers[-1]

    monkeypatch.setattr(job_kinds.ClusterFacesJob, "run", dies_once)
    job = await kith.cluster()
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert answers[0] == answers[1] == {**dict(job.result)}
    assert await count(base, cluster_runs) == 1
    assert job.progress.done == job.progress.total == 11


@pytest.mark.usefixtures("grouping_here")
async def test_a_worker_that_dies_while_grouping_leaves_the_work_to_the_next(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_faces(base, crowd(6, 5))
    real = job_kinds.group_watched
    calls = 0

    async def dies_once(request: GroupingRequest, tell: Tell) -> GroupingResult:
        nonlocal calls
        calls += 1
        await tell(0.7)
        if calls == 1:
            raise Interrupted
        return await real(request, tell)

    monkeypatch.setattr(job_kinds, "group_watched", dies_once)
    job = await kith.cluster()
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    # What the first worker counted is not counted again.
    assert job.progress.done == job.progress.total == 11
    assert [cluster.face_count for cluster in await kith.list_clusters()] == [6, 5]


async def test_a_grouping_process_that_is_killed_is_started_again(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_faces(base, crowd(6, 5))
    killed: list[int] = []

    def killed_once(request: GroupingRequest, report: Report, cancelled: Cancelled) -> GroupingResult:
        def asked() -> bool:
            # Asked in the parent while the child runs.
            for child in multiprocessing.active_children() if not killed else ():
                killed.append(child.pid or 0)
                child.kill()
            return cancelled()

        return group_in_process(request, report, asked)

    monkeypatch.setattr(job_kinds, "group_in_process", killed_once)
    job = await kith.cluster()
    assert killed
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [cluster.face_count for cluster in await kith.list_clusters()] == [6, 5]


@pytest.mark.usefixtures("grouping_here")
async def test_the_next_worker_finds_what_the_one_before_had_read(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_faces(base, crowd(6, 5))
    real = job_kinds.group_watched
    seen: list[GroupingRequest] = []

    async def dies_once(request: GroupingRequest, tell: Tell) -> GroupingResult:
        seen.append(request)
        if len(seen) == 1:
            # Somebody new, who is not part of this run any more.
            await seed_faces(base, crowd(4, seed=1))
            raise Interrupted
        return await real(request, tell)

    monkeypatch.setattr(job_kinds, "group_watched", dies_once)
    job = await kith.cluster()
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [len(request.vectors) for request in seen] == [11, 11]
    assert seen[0].checkpoint == seen[1].checkpoint
    scratch = base.settings.data_dir / "grouping"
    assert list(scratch.iterdir()) == []


async def test_what_a_run_that_was_cancelled_kept_is_swept(base: Foundation) -> None:
    scratch = base.settings.data_dir / "grouping"
    ended, open_job = base.ids.new_uuid(), base.ids.new_uuid()
    async with base.database.transaction() as tx:
        for job_id in (ended, open_job):
            new = NewJob(
                library_id="default",
                kind=job_kinds.CLUSTER_FACES,
                unit="face",
                slices=[{}],
                created_by="test",
                spec={},
                job_id=job_id,
            )
            await create_job(tx, new, base.ids, base.clock)
        await tx.execute(update(jobs).where(jobs.c.job_id == ended).values(state="CANCELLED"))
    unknown = base.ids.new_uuid()
    for job_id in (ended, open_job, unknown):
        Workspace(scratch, job_id).make_vectors(5, 4)
    async with base.database.transaction() as tx:
        assert set(await sweep(tx, scratch)) == {ended, unknown}
    assert list(list_workspaces(scratch)) == [open_job]
