"""Job kinds of this service."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from services.clustering.adapters.qdrant_graph import IndexedGraph, find_neighbours_in_qdrant
from services.clustering.domain.cluster_faces import ClusterFaces, GraphSource, build_request
from services.clustering.domain.grouping_run import FacesRead, Grouping, read_faces, reopen_faces, store_grouping
from services.clustering.domain.increment_run import (
    Increment,
    build_increment,
    follow_last_run,
    read_homes,
    store_increment,
)
from services.clustering.domain.model import ClusteringDeps, ClusterMode, ClusterRun, ClusterScope
from services.clustering.domain.ports import People
from services.clustering.grouping.increment_request import IncrementRequest, IncrementResult
from services.clustering.grouping.process import group_in_process, place_in_process
from services.clustering.grouping.request import Cancelled, GroupingRequest, GroupingResult, Phase, Report
from services.clustering.grouping.request import Progress as GroupingProgress
from services.clustering.grouping.thresholds import resolve_thresholds
from services.clustering.progress import RunProgress, share_done
from services.clustering.recognition import recognise_people
from services.clustering.repository.workspace import Workspace
from shared.child import watch_child
from shared.db.engine import Database, Transaction
from shared.db.long_work import allow_long_work
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, SliceResults
from shared.vectors.faces import FaceFilter, FaceIndex

CLUSTER_FACES = "clustering.cluster_faces"
TELL_S = 0.5

Tell = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ClusterFacesJob:
    """Groups the unassigned faces of a library, in one slice: phases ``match`` (DUAL only), ``read``, ``group``, ``store``.

    Groups are stored in one step at the end, so a worker that dies has changed none. What it had read, and the blocks of the
    graph it had finished, are in the workspace for the next, which goes on from there.
    """

    database: Database
    deps: ClusteringDeps
    people: People
    index: FaceIndex
    scratch: Path

    async def run(self, run: SliceRun) -> Json:
        if "result" in run.slice.checkpoint:
            return dict(run.slice.checkpoint["result"])
        command = ClusterFaces.parse(run.slice.library_id, run.slice.job_spec)
        progress = RunProgress(run)
        counts: dict[str, int] = {}
        seconds: dict[str, float] = {}
        if command.mode is ClusterMode.DUAL:
            started = time.perf_counter()
            await progress.enter("match")
            counts = await recognise_people(self.database, self.deps, self.people, command, run, progress)
            seconds["match"] = time.perf_counter() - started
        workspace = Workspace(self.scratch, run.slice.job_id)
        await progress.enter("read")
        work = self._place if command.scope is ClusterScope.INCREMENTAL else self._group
        answer = await work(run, command, progress, workspace, counts, seconds)
        workspace.remove()
        return answer

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        return dict(results[0])

    async def _group(
        self,
        run: SliceRun,
        command: ClusterFaces,
        progress: RunProgress,
        workspace: Workspace,
        counts: dict[str, int],
        seconds: dict[str, float],
    ) -> Json:
        started = time.perf_counter()
        async with self.database.snapshot() as tx:
            read = await self._read(tx, command, workspace)
        seconds["read"] = time.perf_counter() - started
        await progress.enter("group", total=len(read.faces.face_ids))
        result: GroupingResult | None = None
        if read.model is not None and read.faces.face_ids:
            graph = None
            if command.parameters.graph_source is GraphSource.QDRANT:
                started = time.perf_counter()
                indexed = await self._ask_qdrant(command, read, progress, workspace)
                graph = indexed.graph
                counts["missing"] = read.missing + indexed.missing
                seconds["qdrant"] = time.perf_counter() - started
            request = build_request(self.deps, command, read.model, read.faces, graph, workspace.graph)
            result = await group_watched(request, progress.tell)
            seconds |= {phase.lower(): spent for phase, spent in result.metrics.seconds.items()}
        await progress.enter("store")
        grouping = Grouping(read, read.faces, result, seconds, counts)
        async with run.step() as tx:
            stored = await store_grouping(tx, self.deps, command, grouping, run.slice.job_id)
            answer = tell_result(stored)
            await progress.end(tx, answer)
        return answer

    async def _place(
        self,
        run: SliceRun,
        command: ClusterFaces,
        progress: RunProgress,
        workspace: Workspace,
        counts: dict[str, int],
        seconds: dict[str, float],
    ) -> Json:
        started = time.perf_counter()
        # Of one moment: thresholds are of the space that the faces are read in.
        async with self.database.snapshot() as tx:
            command, last, thresholds = await follow_last_run(tx, command)
            read = await self._read(tx, command, workspace)
            homes = await read_homes(tx, command.library_id, read.faces, last)
        seconds["read"] = time.perf_counter() - started
        await progress.enter("group", total=int(homes.new.sum()))
        result: IncrementResult | None = None
        if read.model is not None and homes.new.any():
            request = build_increment(self.deps, command, read.model, read.faces, homes, thresholds)
            result = await place_watched(request, progress.tell)
            seconds |= {phase.lower(): spent for phase, spent in result.seconds.items()}
        await progress.enter("store")
        increment = Increment(read, homes, thresholds, result, seconds, counts)
        async with run.step() as tx:
            stored = await store_increment(tx, self.deps, command, increment, run.slice.job_id)
            answer = tell_result(stored)
            await progress.end(tx, answer)
        return answer

    async def _read(self, tx: Transaction, command: ClusterFaces, workspace: Workspace) -> FacesRead:
        await allow_long_work(tx)
        kept = await reopen_faces(tx, command.library_id, workspace)
        return kept if kept is not None else await read_faces(tx, self.deps, command, workspace)

    async def _ask_qdrant(
        self, command: ClusterFaces, read: FacesRead, progress: RunProgress, workspace: Workspace
    ) -> IndexedGraph:
        assert read.model is not None
        request = build_request(self.deps, command, read.model, read.faces)
        where = command.selection

        async def tell(done: int, total: int) -> None:
            await progress.tell(share_done(GroupingProgress(Phase.NEIGHBOURS, done, total)))

        faces = len(read.faces.face_ids)
        return await find_neighbours_in_qdrant(
            self.index,
            read.model,
            FaceFilter(
                command.library_id,
                unassigned=True,
                min_quality=where.min_quality,
                captured_from=where.captured_from,
                captured_before=where.captured_before,
            ),
            read.faces.face_ids,
            k=request.sizes.neighbours,
            floor=resolve_thresholds(request.vectors, request.pack_thresholds, request.overrides).knn_floor,
            max_missing=faces if command.allow_missing else int(self.deps.settings.max_missing_share * faces),
            told=tell,
            checkpoint=workspace.graph,
        )


def tell_result(run: ClusterRun) -> Json:
    """The job's result."""
    answer: Json = {
        "run_id": str(run.run_id),
        "faces": run.faces,
        "clusters": run.clusters,
        "clustered": run.clustered,
        "noise": run.noise,
    }
    if run.mode is ClusterMode.DUAL:
        answer |= {name: run.outcome.get(name, 0) for name in ("assigned", "suggested")}
    return answer


async def group_watched(request: GroupingRequest, tell: Tell) -> GroupingResult:
    """Group in another process, telling every half second how far it is (0..1). Errors as of :func:`watch_child`."""

    def run(report: Report, cancelled: Cancelled) -> GroupingResult:
        return group_in_process(request, report, cancelled)

    return await watch_child(run, lambda progress: tell(share_done(progress)), TELL_S)


async def place_watched(request: IncrementRequest, tell: Tell) -> IncrementResult:
    """Place new faces in another process, like :func:`group_watched`."""

    def run(report: Report, cancelled: Cancelled) -> IncrementResult:
        return place_in_process(request, report, cancelled)

    return await watch_child(run, lambda progress: tell(share_done(progress)), TELL_S)
