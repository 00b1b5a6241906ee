"""The suggestions service's part of forgetting a person: questions, answers, counts of them, and where the person was next
best.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.suggestions.repository.forgetting import (
    clear_runner_up,
    delete_answers,
    delete_counts,
    delete_questions,
)
from shared.db.engine import Database, Transaction
from shared.db.long_work import allow_long_work
from shared.jobs.execution import SliceRun
from shared.jobs.forgetting import NOTHING, Removal, find_forgetting, read_forgotten
from shared.jobs.model import Job, Json, Progress, SliceResults

BATCH: Final = 500

Delete = Callable[[Transaction, str, Sequence[UUID], int], Awaitable[int]]
_DELETES: Final[dict[str, Delete]] = {
    "suggestions": delete_questions,
    "reviews": delete_answers,
    "auto_finds": delete_counts,
}


@dataclass(frozen=True, slots=True)
class ForgetSuggestionsHandler:
    """``suggestions.forget_person``, in one slice; its checkpoint is what was removed so far."""

    database: Database

    async def run(self, run: SliceRun) -> Json:
        """Remove in batches, and then, in one statement for each table, the mentions in the evidence for others."""
        library_id = run.slice.library_id
        async with self.database.transaction() as tx:
            people = (await read_forgotten(tx, library_id, find_forgetting(run.slice.spec))).person_ids
        removed = Removal.from_json(run.slice.checkpoint)
        for table, delete in _DELETES.items():
            gone = BATCH
            while gone == BATCH:
                async with run.step() as tx:
                    gone = await delete(tx, library_id, people, BATCH)
                    removed = removed.plus(Removal({table: gone}, {}))
                    await run.checkpoint(tx, Progress(done=gone, phase=table), removed.to_json())
        async with run.step() as tx:
            await allow_long_work(tx)
            cleared = await clear_runner_up(tx, library_id, people)
            removed = removed.plus(Removal(cleared, {}))
            await run.checkpoint(tx, Progress(done=sum(cleared.values()), phase="evidence"), removed.to_json())
        return removed.to_json()

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """What the only slice removed."""
        return dict(results[0]) if results else NOTHING.to_json()
