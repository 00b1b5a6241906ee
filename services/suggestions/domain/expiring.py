"""Questions that are over: closed while they are open, and removed long after.

Neither touches an answer. A rejected pair keeps its row for ever, so that nothing can ask about it again; a pair whose question
expired may be asked about anew, with the evidence of that day. That a question is less sure than would be asked today is no
reason to close it.

No row outlives its face or its person: foreign keys see to it. The purge looks all the same, as a library may have been loaded
without them; what it finds in fact are questions that expired long ago and that nobody answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from services.suggestions.domain.model import SuggestionsDeps, SuggestionState
from services.suggestions.repository.following import lock_questions, settle_questions
from services.suggestions.repository.tidying import (
    count_questions,
    expire_questions,
    list_questions,
    lock_pairs,
    purge_questions,
)
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.jobs.model import Job, NewJob
from shared.jobs.repository import create_job

EXPIRE: Final = "suggestions.expire"
PURGE_ORPHANED: Final = "suggestions.purge_orphaned"
BATCH_QUESTIONS: Final = 500


@dataclass(frozen=True, slots=True)
class TidiedBatch:
    """What became of a batch of questions: ``last`` is the id of the last one looked at, ``settled`` how many were closed or
    removed.
    """

    looked_at: int
    last: UUID | None
    settled: int

    @property
    def is_last(self) -> bool:
        """Whether no question is left."""
        return self.looked_at < BATCH_QUESTIONS


TidyBatch = Callable[[Transaction, SuggestionsDeps, str, UUID | None], Awaitable[TidiedBatch]]


async def start_expire(tx: Transaction, deps: SuggestionsDeps, library_id: str, caller: Caller) -> Job:
    """Create the job that expires the questions that no longer stand."""
    return await _start(tx, deps, library_id, EXPIRE, [SuggestionState.PENDING], caller)


async def start_purge(tx: Transaction, deps: SuggestionsDeps, library_id: str, caller: Caller) -> Job:
    """Create the job that removes rows that are of no more use."""
    return await _start(tx, deps, library_id, PURGE_ORPHANED, list(SuggestionState), caller)


async def expire_batch(tx: Transaction, deps: SuggestionsDeps, library_id: str, after: UUID | None) -> TidiedBatch:
    """Look at the next open questions and expire those that are over; five statements.

    A question whose person is merged, deleted or has lost what it rests on is followed, as after a merge: it goes on about the
    survivor, or is dormant until they come back. Older than ``suggestions.max_age_days`` counts from when it was last asked.
    """
    found = await list_questions(tx, library_id, [SuggestionState.PENDING], after, BATCH_QUESTIONS)
    if not found:
        return TidiedBatch(0, after, 0)
    await lock_questions(tx, found)
    days = deps.settings.max_age_days
    asked_before = None if days is None else deps.clock.now() - timedelta(days=days)
    expired = await expire_questions(tx, deps.clock, found, asked_before)
    # After the others: what is closed for a reason of its own does not wait for its person.
    followed = await settle_questions(tx, deps.clock, found)
    return TidiedBatch(len(found), found[-1], expired + followed.expired)


async def purge_batch(tx: Transaction, deps: SuggestionsDeps, library_id: str, after: UUID | None) -> TidiedBatch:
    """Look at the next suggestions, whatever their state, and remove those of no more use; three statements."""
    found = await list_questions(tx, library_id, list(SuggestionState), after, BATCH_QUESTIONS)
    if not found:
        return TidiedBatch(0, after, 0)
    await lock_pairs(tx, found)
    closed_before = deps.clock.now() - timedelta(days=deps.settings.keep_expired_days)
    return TidiedBatch(len(found), found[-1], await purge_questions(tx, found, closed_before))


async def _start(
    tx: Transaction, deps: SuggestionsDeps, library_id: str, kind: str, states: list[SuggestionState], caller: Caller
) -> Job:
    new = NewJob(
        library_id=library_id,
        kind=kind,
        unit="suggestion",
        slices=[{}],
        created_by=caller.subject,
        total=await count_questions(tx, library_id, states),
    )
    return await create_job(tx, new, deps.ids, deps.clock)
