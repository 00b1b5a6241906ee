"""The job that gives one person many faces."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.persons.domain.batching import assign_part, read_command
from services.persons.domain.model import PersonsDeps
from shared.db.engine import Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults

# Faces locked in one transaction.
BATCH_FACES = 250


@dataclass(frozen=True, slots=True)
class AssignFacesHandler:
    """``persons.assign_faces``. The slice names the faces; its checkpoint, how far it is and what became of them."""

    deps: PersonsDeps

    async def run(self, run: SliceRun) -> Json:
        """Give the slice's faces to the person, a batch at a time."""
        spec, face_ids = run.slice.job_spec, run.slice.spec["face_ids"]
        at = {"faces": 0, "assigned": 0, "failed": 0, **run.slice.checkpoint}
        while at["faces"] < len(face_ids):
            batch = face_ids[at["faces"] : at["faces"] + BATCH_FACES]
            command = read_command(run.slice.library_id, spec, batch)
            async with run.step() as tx:
                made = await assign_part(tx, self.deps, command, UUID(spec["change_id"]), run.slice.created_by)
                failed = len(made.failures)
                at = {
                    "faces": at["faces"] + len(batch),
                    "assigned": at["assigned"] + made.assigned,
                    "failed": at["failed"] + failed,
                }
                progress = Progress(
                    done=made.assigned, failed=failed, skipped=made.skipped, phase="assign", failures=made.failures
                )
                await run.checkpoint(tx, progress, at)
        return {"assigned": at["assigned"], "failed": at["failed"]}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Add up what the slices counted."""
        counts = {name: sum(result[name] for result in results) for name in ("assigned", "failed")}
        return {**counts, "change_id": job.spec["change_id"]}
