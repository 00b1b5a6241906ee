"""The review queue: questions, each for one reviewer at a time.

A lease binds nobody. It only keeps others from being given the same question; an answer without one is as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.suggestions.domain.model import Suggestion, SuggestionsDeps
from services.suggestions.repository.bulk_reviews import get_asked_pairs
from services.suggestions.repository.leases import QueuedQuestion, lease_questions, lock_next
from shared.db.engine import Transaction

_LOOKS: Final = 3


@dataclass(frozen=True, slots=True)
class LeaseQueue:
    """Up to ``limit`` questions for a reviewer."""

    library_id: str
    reviewer: str
    limit: int


@dataclass(frozen=True, slots=True)
class LeasedQuestion:
    """A question, and how many faces its answer settles."""

    suggestion: Suggestion
    settles: int


@dataclass(frozen=True, slots=True)
class LeasedQueue:
    """Questions in the order they should be asked, a reviewer's own until ``until``."""

    questions: list[LeasedQuestion]
    until: datetime


async def lease_queue(tx: Transaction, deps: SuggestionsDeps, command: LeaseQueue) -> LeasedQueue:
    """Give a reviewer what they have already, for longer, and more up to the limit; three statements, if others race, seven.

    What another reviewer took in the moment between the reading of the queue and the locks is not given twice; the queue is
    read again instead, so that a short answer means a short queue.
    """
    now = deps.clock.now()
    until = now + timedelta(seconds=deps.settings.lease_s)
    given: list[QueuedQuestion] = []
    for _ in range(_LOOKS):
        found = await lock_next(tx, command.library_id, command.reviewer, now, command.limit)
        ids = [question.suggestion_id for question in found]
        leased = await lease_questions(tx, command.library_id, command.reviewer, ids, now, until)
        given = [question for question in found if question.suggestion_id in leased]
        if len(given) == len(found):
            break
    pairs = await get_asked_pairs(tx, command.library_id, [question.suggestion_id for question in given])
    return LeasedQueue(
        [LeasedQuestion(pairs[question.suggestion_id].suggestion, question.settles) for question in given], until
    )
