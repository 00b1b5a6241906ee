"""TrainMatcher when something comes in between: workers and processes that die, a cancel, another model."""

from __future__ import annotations

import multiprocessing
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from kith.clustering.v1 import clusters_pb2, clusters_pb2_grpc
from kith.jobs.v1 import jobs_pb2
from services.clustering.server import start as start_clustering
from services.persons import training_jobs
from services.persons.matching.process import learn_in_process
from services.persons.matching.request import Cancelled, Phase, Progress, Report, TrainedMatcher, TrainingRequest
from shared.db.tables_detection import models
from shared.foundation import Foundation
from shared.jobs.execution import SliceRun
from shared.jobs.model import Json
from tests.integration.conftest import Running, eventually
from tests.integration.persons.training import Kith, count_matchers, result_of, seed_confirmed, start_kith


@pytest.fixture
async def kith(running: Running) -> Kith:
    return await start_kith(running)


class Interrupted(Exception):
    """The worker is gone."""


def interrupt_after_run(monkeypatch: pytest.MonkeyPatch) -> list[Json]:
    """Let the first worker die once its slice is through; answers what each came to."""
    real = training_jobs.TrainMatcherHandler.run
    answers: list[Json] = []

    async def dies_once(self: training_jobs.TrainMatcherHandler, run: SliceRun) -> Json:
        answers.append(await real(self, run))
        if len(answers) == 1:
            raise Interrupted
        return answers[-1]

    monkeypatch.setattr(training_jobs.TrainMatcherHandler, "run", dies_once)
    return answers


async def test_the_unassigned_are_grouped_again_once_after_an_activation(
    running: Running, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clustering = clusters_pb2_grpc.ClusterServiceStub(await running.server("clustering", start_clustering))
    kith = await start_kith(running)
    await seed_confirmed(base)
    answers = interrupt_after_run(monkeypatch)
    job = await kith.train(activate_if_better=True, recluster_after=True)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    # The first worker died after it had asked for the grouping; the second asked again and got the same.
    assert answers[0] == answers[1] == result_of(job)
    jobs = (await kith.jobs.ListJobs(jobs_pb2.ListJobsRequest(kinds=["clustering.cluster_faces"]))).jobs
    assert [found.id for found in jobs] == [result_of(job)["cluster_job_id"]]
    assert await count_matchers(base) == 1
    assert not (await clustering.ListClusterRuns(clusters_pb2.ListClusterRunsRequest())).runs


async def test_a_worker_that_dies_after_storing_does_not_store_twice(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_confirmed(base)
    answers = interrupt_after_run(monkeypatch)
    job = await kith.train(activate_if_better=True)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert answers[0] == answers[1]
    assert await count_matchers(base) == 1
    assert job.progress.done == job.progress.total == 3


async def test_a_worker_that_dies_while_it_learns_leaves_the_work_to_the_next(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_confirmed(base)
    real = training_jobs.learn_watched
    matrices: list[np.ndarray[Any, Any]] = []

    async def dies_once(request: TrainingRequest, tell: Callable[[Progress], Awaitable[None]]) -> TrainedMatcher:
        await tell(Progress(Phase.TRAIN, 2, 3))
        trained = await real(request, tell)
        matrices.append(trained.matrix)
        if len(matrices) == 1:
            raise Interrupted
        return trained

    monkeypatch.setattr(training_jobs, "learn_watched", dies_once)
    job = await kith.train()
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    # What the first worker counted is not counted again, and the second learnt the same.
    assert job.progress.done == job.progress.total == 3
    np.testing.assert_array_equal(matrices[0], matrices[1])
    assert await count_matchers(base) == 1


async def test_a_training_process_that_is_killed_is_started_again(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_confirmed(base)
    killed: list[int] = []

    def killed_once(request: TrainingRequest, report: Report, cancelled: Cancelled) -> TrainedMatcher:
        def asked() -> bool:
            for child in multiprocessing.active_children() if not killed else ():
                killed.append(child.pid or 0)
                child.kill()
            return cancelled()

        return learn_in_process(request, report, asked)

    monkeypatch.setattr(training_jobs, "learn_in_process", killed_once)
    job = await kith.train()
    assert killed
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert await count_matchers(base) == 1


async def test_cancelling_stops_the_process_and_stores_nothing(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_confirmed(base)

    def endless(request: TrainingRequest, report: Report, cancelled: Cancelled) -> TrainedMatcher:
        # More epochs than anybody waits for.
        options = replace(request.options, epochs=100_000, patience=100_000)
        return learn_in_process(replace(request, options=options), report, cancelled)

    monkeypatch.setattr(training_jobs, "learn_in_process", endless)
    begun = await kith.start()

    async def training() -> bool:
        job = (await kith.jobs.GetJob(jobs_pb2.GetJobRequest(job_id=begun.id))).job
        return job.phase == "train" and bool(multiprocessing.active_children())

    await eventually(training)
    await kith.jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=begun.id))
    assert (await kith.ended(begun)).state == jobs_pb2.JOB_STATE_CANCELLED

    async def stopped() -> bool:
        return not multiprocessing.active_children()

    await eventually(stopped)
    assert await count_matchers(base) == 0


async def test_a_library_moved_to_another_model_meanwhile_fails_by_what_it_has_then(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_confirmed(base)
    real = training_jobs.learn_watched

    async def overtaken(request: TrainingRequest, tell: Callable[[Progress], Awaitable[None]]) -> TrainedMatcher:
        trained = await real(request, tell)
        async with base.database.transaction() as tx:
            await tx.execute(update(models).values(model_version="next_model"))
        return trained

    monkeypatch.setattr(training_jobs, "learn_watched", overtaken)
    job = await kith.train()
    # It began again, and found no embeddings of the new model.
    assert job.state == jobs_pb2.JOB_STATE_FAILED
    assert job.error.reason == "TOO_FEW_FACES"
    assert "Person" not in job.error.message
    assert await count_matchers(base) == 0
