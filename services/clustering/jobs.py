"""Job kinds of this service."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from services.clustering.domain.grouping_run import (
    ClusterFaces,
    Grouping,
    build_request,
    read_faces,
    store_grouping,
)
from services.clustering.domain.model import ClusteringDeps
from services.clustering.grouping.process import group_in_process
from services.clustering.grouping.request import Cancelled, GroupingRequest, GroupingResult, Phase, Report
from services.clustering.grouping.request import Progress as GroupingProgress
from shared.child import watch_child
from shared.db.engine import Database, Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults

CLUSTER_FACES = "clustering.cluster_faces"
TELL_S = 0.5
# How far a grouping is when a phase begins, as a share of the whole: finding neighbours is most of it.
_BEGINS = {Phase.NEIGHBOURS: 0.0, Phase.FORM: 0.7, Phase.MERGE: 0.8, Phase.ATTACH: 0.9, Phase.MEASURE: 0.95}
_ENDS = {Phase.NEIGHBOURS: 0.7, Phase.FORM: 0.8, Phase.MERGE: 0.9, Phase.ATTACH: 0.95, Phase.MEASURE: 1.0}


class ClusterFacesJob:
    """Groups the unassigned faces of a library, in one slice: phases ``read``, ``group``, ``store``.

    Everything is stored in one step at the end, so a worker that dies has changed nothing and the next begins anew.
    """

    def __init__(self, database: Database, deps: ClusteringDeps) -> None:
        self._database = database
        self._deps = deps

    async def run(self, run: SliceRun) -> Json:
        if "result" in run.slice.checkpoint:
            return dict(run.slice.checkpoint["result"])
        command = ClusterFaces.parse(run.slice.library_id, run.slice.job_spec)
        count = _FaceCount(run)
        await count.enter("read")
        started = time.perf_counter()
        async with self._database.snapshot() as tx:
            model, faces = await read_faces(tx, self._deps, command)
        seconds = {"read": time.perf_counter() - started}
        result: GroupingResult | None = None
        await count.enter("group", total=len(faces.face_ids))
        if model is not None and faces.face_ids:
            request = build_request(self._deps, command, model, faces)
            result = await group_watched(request, count.tell)
            seconds |= {phase.lower(): spent for phase, spent in result.metrics.seconds.items()}
        await count.enter("store")
        grouping = Grouping(faces, model.model_version if model else "", result, seconds)
        async with run.step() as tx:
            stored = await store_grouping(tx, self._deps, command, grouping, run.slice.job_id)
            answer = {
                "run_id": str(stored.run_id),
                "faces": stored.faces,
                "clusters": stored.clusters,
                "clustered": stored.clustered,
                "noise": stored.noise,
            }
            await run.checkpoint(tx, count.rest(), {"result": answer})
        return answer

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        return dict(results[0])


async def group_watched(request: GroupingRequest, tell: Callable[[float], Awaitable[None]]) -> GroupingResult:
    """Group in another process, telling every half second how far it is (0..1). Errors as of :func:`watch_child`."""

    def run(report: Report, cancelled: Cancelled) -> GroupingResult:
        return group_in_process(request, report, cancelled)

    async def tell_share(progress: GroupingProgress) -> None:
        begin, end = _BEGINS[progress.phase], _ENDS[progress.phase]
        await tell(begin + (end - begin) * progress.done / max(1, progress.total))

    return await watch_child(run, tell_share, TELL_S)


class _FaceCount:
    """Progress in faces. It only grows, and what an earlier worker counted before it died is not counted again."""

    def __init__(self, run: SliceRun) -> None:
        self._run = run
        self._counted: int = run.slice.checkpoint.get("counted", 0)
        self._total = 0

    async def enter(self, phase: str, *, total: int | None = None) -> None:
        """Begin a phase; ``total`` faces if that is known now."""
        if total is not None:
            self._total = total
        await self._run.report(Progress(phase=phase, total=total))

    async def tell(self, share: float) -> None:
        """Count up to this share (0..1) of all faces."""
        counted = int(share * self._total)
        if counted > self._counted:
            step = Progress(done=counted - self._counted)
            async with self._run.step() as tx:
                await self._run.checkpoint(tx, step, {"counted": counted})
            self._counted = counted

    def rest(self) -> Progress:
        """What is missing to the total."""
        return Progress(done=self._total - self._counted)
