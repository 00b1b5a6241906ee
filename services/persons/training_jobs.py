"""The job that trains a matcher."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final
from uuid import uuid5

from services.persons.domain.model import PersonsDeps
from services.persons.domain.ports import Grouping
from services.persons.domain.training import TrainMatcher, read_training_faces, store_matcher
from services.persons.matching.process import learn_in_process
from services.persons.matching.request import Cancelled, Phase, Report, TrainedMatcher, TrainingOptions, TrainingRequest
from services.persons.matching.request import Progress as TrainingProgress
from shared.caller import Caller
from shared.child import watch_child
from shared.db.engine import Database, Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults

TELL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class TrainMatcherHandler:
    """``persons.train_matcher``, in one slice: phases ``read``, ``train`` (counted in epochs), ``measure``, ``store``.

    The matcher is stored in one step at the end, so a worker that dies has stored nothing and the next begins anew, with the
    same seed. Its grouping is started after that, under a request id made of the job's: once, however often it is asked for.
    """

    database: Database
    deps: PersonsDeps
    grouping: Grouping

    async def run(self, run: SliceRun) -> Json:
        """Train, store, and have the unassigned faces grouped again if that was asked for."""
        result = run.slice.checkpoint.get("result")
        if result is None:
            result = await self._train(run)
        if not run.slice.job_spec["recluster_after"] or not result["activated"]:
            return dict(result)
        job_id = await self.grouping.start(run.slice.library_id, uuid5(run.slice.job_id, "recluster"))
        return {**result, "cluster_job_id": str(job_id)}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """The one slice's result."""
        return dict(results[0])

    async def _train(self, run: SliceRun) -> Json:
        command = TrainMatcher.parse(run.slice.library_id, run.slice.job_spec)
        count = _EpochCount(run, command.epochs)
        await count.enter("read")
        async with self.database.snapshot() as tx:
            model, faces = await read_training_faces(tx, self.deps, command)
        options = TrainingOptions(seed=command.seed, epochs=command.epochs)
        trained = await learn_watched(TrainingRequest(faces.vectors, faces.people, options), count.tell)
        await count.enter("store")
        spec = run.slice.job_spec
        caller = Caller(run.slice.created_by, spec["rpc"], spec["request_id"])
        async with run.step() as tx:
            stored = await store_matcher(tx, self.deps, command, model, run.slice.job_id, trained, caller)
            report = stored.matcher.report
            result = {
                "matcher_id": str(stored.matcher.matcher_id),
                "better": report.better,
                "activated": stored.matcher.active,
                "before": asdict(report.before),
                "after": asdict(report.after),
                "change_id": str(stored.change_id) if stored.change_id else "",
            }
            await run.checkpoint(tx, count.rest(), {"result": result})
        return result


async def learn_watched(
    request: TrainingRequest, tell: Callable[[TrainingProgress], Awaitable[None]]
) -> TrainedMatcher:
    """Learn in another process, telling every half second how far it is. Errors as of :func:`watch_child`."""

    def run(report: Report, cancelled: Cancelled) -> TrainedMatcher:
        return learn_in_process(request, report, cancelled)

    return await watch_child(run, tell, TELL_S)


class _EpochCount:
    """Progress in epochs. It only grows, and what an earlier worker counted before it died is not counted again."""

    def __init__(self, run: SliceRun, total: int) -> None:
        self._run = run
        self._counted: int = run.slice.checkpoint.get("counted", 0)
        self._total = total
        self._phase = ""

    async def enter(self, phase: str) -> None:
        """Begin a phase."""
        self._phase = phase
        await self._run.report(Progress(phase=phase))

    async def tell(self, progress: TrainingProgress) -> None:
        """Count up to the epochs that are done, and change the phase if the training has."""
        phase = "train" if progress.phase is Phase.TRAIN else "measure"
        if phase != self._phase:
            await self.enter(phase)
        if progress.done > self._counted:
            step = Progress(done=progress.done - self._counted)
            async with self._run.step() as tx:
                await self._run.checkpoint(tx, step, {"counted": progress.done})
            self._counted = progress.done

    def rest(self) -> Progress:
        """What is missing to the total."""
        return Progress(done=self._total - self._counted)
