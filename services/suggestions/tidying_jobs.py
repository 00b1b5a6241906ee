"""Handlers of the jobs that go through a library's questions once and close or remove what is over."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.suggestions.domain.expiring import TidyBatch
from services.suggestions.domain.model import SuggestionsDeps
from shared.db.engine import Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults


@dataclass(frozen=True, slots=True)
class TidyHandler:
    """``suggestions.expire`` and ``suggestions.purge_orphaned``, each in one slice, whose checkpoint is the last question
    looked at and how many were settled. ``outcome`` names these in the result.
    """

    deps: SuggestionsDeps
    tidy_batch: TidyBatch
    outcome: str

    async def run(self, run: SliceRun) -> Json:
        """Go through the questions, a batch at a time."""
        settled = run.slice.checkpoint.get(self.outcome, 0)
        at = run.slice.checkpoint.get("after")
        after = UUID(at) if at else None
        ended = False
        while not ended:
            async with run.step() as tx:
                batch = await self.tidy_batch(tx, self.deps, run.slice.library_id, after)
                settled += batch.settled
                after, ended = batch.last, batch.is_last
                position = {"after": str(after) if after else "", self.outcome: settled}
                await run.checkpoint(tx, Progress(done=batch.looked_at), position)
        return {self.outcome: settled}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """What the only slice settled."""
        return {self.outcome: sum(result[self.outcome] for result in results)}
