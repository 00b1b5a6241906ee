"""The first step of a DUAL run: known people get the faces that are surely theirs, and are asked about the doubtful ones."""

from __future__ import annotations

import asyncio
import threading

import numpy as np

from services.clustering.domain.assigning import Assigner
from services.clustering.domain.cluster_faces import ClusterFaces
from services.clustering.domain.grouping_run import check_faces
from services.clustering.domain.model import ClusteringDeps
from services.clustering.domain.ports import People
from services.clustering.domain.recognising import Recognised, make_recognition_rules, recognise_faces
from services.clustering.progress import RunProgress
from services.clustering.repository.known import KnownPeople, read_bounds, read_known
from services.clustering.repository.unassigned import FaceTable, read_unassigned
from shared.db.engine import Database
from shared.jobs.execution import SliceRun

_KEPT = "match"


async def recognise_people(
    database: Database,
    deps: ClusteringDeps,
    people: People,
    command: ClusterFaces,
    run: SliceRun,
    progress: RunProgress,
) -> dict[str, int]:
    """Do it, and answer how many faces were ``assigned`` and how many questions ``suggested``.

    Each round of calls is kept with the position before it is sent, so that a worker that takes over repeats it as it was. The
    faces are held in the worker's own memory, within the run's budget, while they are looked at.
    """
    assigner = Assigner(people, deps, command.library_id, run.slice.job_id, progress.kept(_KEPT))
    await assigner.send()
    if not assigner.ended:
        found = await _recognise(database, deps, command)
        if found is not None:
            assigner.plan(*found)
        while assigner.prepare():
            await progress.keep(_KEPT, assigner.position)
            await assigner.send()
        async with run.step() as tx:
            await assigner.ask(tx, run.slice.created_by)
            await progress.keep_in(tx, _KEPT, assigner.position)
    return {"assigned": assigner.assigned, "suggested": assigner.suggested}


async def _recognise(
    database: Database, deps: ClusteringDeps, command: ClusterFaces
) -> tuple[KnownPeople, FaceTable, Recognised] | None:
    """Everybody there is, the faces in the model's own space, and the verdicts; None in a library without a model."""
    async with database.snapshot() as tx:
        model, counts = await check_faces(tx, deps, command)
        if model is None:
            return None
        known = await read_known(tx, command.library_id, model, deps.settings.memory_budget_mb)
        vectors = np.empty((counts.embedded, model.dimension), dtype=np.float16)
        faces = await read_unassigned(tx, command.library_id, model, command.selection, vectors)
        bounds = await read_bounds(tx, command.library_id, known, faces.face_ids)
    rules = make_recognition_rules(deps, known)
    stop = threading.Event()
    work = asyncio.create_task(
        asyncio.to_thread(recognise_faces, known, faces, bounds, rules, cancelled=stop.is_set), name="recognise"
    )
    try:
        await asyncio.wait([work])
    finally:
        # A thread cannot be cancelled, but it looks.
        stop.set()
        await asyncio.wait([work])
    return known, faces, work.result()
