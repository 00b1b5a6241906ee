"""Handlers of this service's jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.persons.domain.model import PersonsDeps
from shared.db.engine import Transaction
from shared.db.people_queue import queue_people
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults

REFRESH_PEOPLE: Final = "persons.refresh_people"
"""What version N-1 of detection creates where it now queues persons for the settler; a later version drops this handler."""


@dataclass(frozen=True, slots=True)
class RefreshPeopleHandler:
    """:data:`REFRESH_PEOPLE`. A slice names its persons, at most 200; they are left to the settler."""

    deps: PersonsDeps

    async def run(self, run: SliceRun) -> Json:
        """Queue the slice's persons."""
        person_ids = {UUID(person_id) for person_id in run.slice.spec["person_ids"]}
        async with run.step() as tx:
            await queue_people(tx, self.deps.clock, run.slice.library_id, person_ids)
            await run.checkpoint(tx, Progress(done=len(person_ids), phase="refresh"), {"persons": len(person_ids)})
        return {"persons": len(person_ids)}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Add up what the slices counted."""
        return {"persons": sum(result["persons"] for result in results)}
