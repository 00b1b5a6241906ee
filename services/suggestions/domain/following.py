"""Open questions follow people: into others and back, and out of sight while their person is gone.

What a question is about today is read from how persons stand now, never from what was done to them. So it does not matter in
which order merges and their undoings are followed, or how often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.suggestions.domain.model import SuggestionsDeps
from services.suggestions.repository.following import (
    Following,
    list_parts,
    list_questions_about,
    lock_questions,
    settle_questions,
)
from shared.db.engine import Transaction

BATCH_QUESTIONS: Final = 500


@dataclass(frozen=True, slots=True)
class FollowedBatch:
    """What became of a batch of questions; ``last`` is the id of the last one looked at, None if there was none."""

    looked_at: int
    last: UUID | None
    following: Following

    @property
    def is_last(self) -> bool:
        """Whether no question is left."""
        return self.looked_at < BATCH_QUESTIONS


async def follow_people(
    tx: Transaction, deps: SuggestionsDeps, library_id: str, person_ids: Sequence[UUID], after: UUID | None
) -> FollowedBatch:
    """Set the next questions about these persons, and about everybody who became part of them, right; five statements."""
    parts = await list_parts(tx, person_ids)
    found = await list_questions_about(tx, library_id, parts, after, BATCH_QUESTIONS)
    if not found:
        return FollowedBatch(0, after, Following(0, 0, 0))
    await lock_questions(tx, found)
    return FollowedBatch(len(found), found[-1], await settle_questions(tx, deps.clock, found))
