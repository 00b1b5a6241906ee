"""The first step of a DUAL run: known people get the faces that are surely theirs, and are asked about the doubtful ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from services.clustering.domain.assigning import Assigner
from services.clustering.domain.cluster_faces import ClusterFaces
from services.clustering.domain.grouping_run import check_faces
from services.clustering.domain.model import ClusteringDeps
from services.clustering.domain.recognising import Recognised, make_recognition_rules, recognise_faces
from services.clustering.progress import RunProgress
from services.clustering.repository.known import KnownPeople, read_bounds, read_known
from services.clustering.repository.unassigned import FaceTable, read_unassigned
from shared.child import Cancelled, watch_child
from shared.db.engine import Database
from shared.db.long_work import allow_long_work
from shared.jobs.execution import SliceRun
from shared.jobs.handing_over import MachineAssignments

_KEPT = "match"
_TELL_S = 0.5
# How much of a run this is, to those who watch it.
_MATCH_SHARE = 0.2


async def recognise_people(
    database: Database,
    deps: ClusteringDeps,
    people: MachineAssignments,
    command: ClusterFaces,
    run: SliceRun,
    progress: RunProgress,
) -> dict[str, int]:
    """Do it, and answer how many faces were ``assigned`` and how many questions ``suggested``.

    Each round of calls is kept with the position before it is sent, so that a worker that takes over repeats it as it was. The
    faces are held in the worker's own memory, within the run's budget, while they are looked at.
    """
    assigner = Assigner(people, deps, command.library_id, run.slice.job_id, progress.kept(_KEPT))
    await assigner.rounds.send()
    if not assigner.ended:
        found = await _recognise(database, deps, command, progress)
        if found is not None:
            assigner.plan(*found)
        while assigner.rounds.prepare():
            await progress.keep(_KEPT, assigner.position)
            await assigner.rounds.send()
        async with run.step() as tx:
            await assigner.ask(tx, run.slice.created_by)
            await progress.keep_in(tx, _KEPT, assigner.position)
    return {"assigned": assigner.rounds.assigned, "suggested": assigner.suggested}


async def _recognise(
    database: Database, deps: ClusteringDeps, command: ClusterFaces, progress: RunProgress
) -> tuple[KnownPeople, FaceTable, Recognised] | None:
    """Everybody there is, the faces in the model's own space, and the verdicts; None in a library without a model."""
    async with database.snapshot() as tx:
        await allow_long_work(tx)
        model, counts = await check_faces(tx, deps, command)
        if model is None:
            return None
        known = await read_known(tx, command.library_id, model, deps.settings.memory_budget_mb)
        vectors = np.empty((counts.embedded, model.dimension), dtype=np.float16)
        faces = await read_unassigned(tx, command.library_id, model, command.selection, vectors)
        bounds = await read_bounds(tx, command.library_id, known, faces.face_ids)
    rules = make_recognition_rules(deps, known)
    await progress.enter("match", total=len(faces.face_ids))

    def work(report: Callable[[float], None], cancelled: Cancelled) -> Recognised:
        def tell(done: int) -> None:
            report(_MATCH_SHARE * done / len(faces.face_ids))

        return recognise_faces(known, faces, bounds, rules, tell, cancelled)

    # In a thread: numpy lets go of the interpreter, and what is large is not sent anywhere.
    return known, faces, await watch_child(work, progress.tell, _TELL_S)
