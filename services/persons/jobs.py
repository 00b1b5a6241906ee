"""Handlers of this service's jobs."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.persons.domain.model import PersonsDeps
from services.persons.domain.settling import settle_people
from shared.db.engine import Database, Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults

# Persons locked in one transaction.
BATCH_PERSONS = 20


@dataclass(frozen=True, slots=True)
class RefreshPeopleHandler:
    """``persons.refresh_people``. A slice names its persons; its checkpoint, how many are done."""

    database: Database
    deps: PersonsDeps

    async def run(self, run: SliceRun) -> Json:
        """Bring the slice's persons up to date, a batch at a time."""
        person_ids = [UUID(person_id) for person_id in run.slice.spec["person_ids"]]
        for at in range(run.slice.checkpoint.get("persons", 0), len(person_ids), BATCH_PERSONS):
            batch = person_ids[at : at + BATCH_PERSONS]
            async with run.step() as tx:
                await settle_people(tx, self.deps, run.slice.library_id, batch)
                await run.checkpoint(tx, Progress(done=len(batch), phase="refresh"), {"persons": at + len(batch)})
        return {"persons": len(person_ids)}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Add up what the slices counted."""
        return {"persons": sum(result["persons"] for result in results)}
