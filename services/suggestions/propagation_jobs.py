"""Handler of the job that asks about the faces most like some given ones."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.suggestions.domain.model import SuggestionsDeps
from services.suggestions.domain.ports import CentroidSearch, FaceSearch
from services.suggestions.domain.propagating import PropagateLabel, make_propagation
from shared.db.engine import Database, Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults

COUNTS = ("candidates", "created")


@dataclass(frozen=True, slots=True)
class PropagateHandler:
    """``suggestions.propagate_label``. One slice names the person and the faces; it is one step, whose checkpoint is what it
    counted.
    """

    database: Database
    deps: SuggestionsDeps
    faces: FaceSearch
    centroids: CentroidSearch

    async def run(self, run: SliceRun) -> Json:
        """Look for faces like the given ones, and ask about them."""
        if run.slice.checkpoint:
            return dict(run.slice.checkpoint)
        command = PropagateLabel(
            library_id=run.slice.library_id,
            person_id=UUID(run.slice.spec["person_id"]),
            face_ids=[UUID(face_id) for face_id in run.slice.spec["face_ids"]],
        )
        count = len(command.face_ids)
        finder = await make_propagation(self.database, self.deps, self.faces, self.centroids, command)
        if finder is None:
            counts = dict.fromkeys(COUNTS, 0)
            async with run.step() as tx:
                await run.checkpoint(tx, Progress(done=count, skipped=count), counts)
            return counts
        found = await finder.find([command.person_id])
        async with run.step() as tx:
            stored = await finder.store(tx, run.slice.job_id, [command.person_id], found)
            counts = {"candidates": found.candidates, "created": stored.created}
            await run.checkpoint(tx, Progress(done=count, phase="search"), counts)
        return counts

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """What the only slice counted."""
        return {name: sum(result[name] for result in results) for name in COUNTS}
