"""SQL of ``review_leases``.

A lease is written, and ended, only under the lock of its suggestion.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, delete, func, or_, select, true
from sqlalchemy.dialects.postgresql import insert

from services.suggestions.domain.model import SuggestionState
from services.suggestions.repository.open_questions import select_open_questions
from shared.db.engine import Transaction
from shared.db.tables_suggestions import review_leases, suggestions


@dataclass(frozen=True, slots=True)
class QueuedQuestion:
    """A question of the queue, and how many faces its answer settles."""

    suggestion_id: UUID
    settles: int


async def lock_next(tx: Transaction, library_id: str, reviewer: str, now: datetime, limit: int) -> list[QueuedQuestion]:
    """Lock the next open questions for a reviewer, in order: their own, those that settle most faces, the surest.

    Questions that somebody is answering, or being given, at this moment are passed over.
    """
    questions = select_open_questions(library_id)
    held = and_(review_leases.c.suggestion_id.is_not(None), review_leases.c.leased_until > now)
    own = and_(held, review_leases.c.reviewer == reviewer)
    queue = (
        select(questions.c.suggestion_id, questions.c.faces_settled)
        .outerjoin(review_leases, review_leases.c.suggestion_id == questions.c.suggestion_id)
        .where(or_(~held, own))
        .order_by(
            own.desc(), questions.c.faces_settled.desc(), questions.c.confidence.desc(), questions.c.suggestion_id
        )
        .subquery("queue")
    )
    # Looked up and locked one after the other in the order of the queue, until there are enough: only their ids are sorted.
    locked = (
        select(suggestions.c.suggestion_id)
        .where(
            suggestions.c.suggestion_id == queue.c.suggestion_id,
            suggestions.c.state == SuggestionState.PENDING.value,
        )
        .with_for_update(key_share=True, skip_locked=True)
        .lateral("locked")
    )
    rows = await tx.rows(select(queue).join(locked, true()).limit(limit))
    return [QueuedQuestion(row.suggestion_id, row.faces_settled) for row in rows]


async def lease_questions(
    tx: Transaction, library_id: str, reviewer: str, suggestion_ids: Sequence[UUID], now: datetime, until: datetime
) -> set[UUID]:
    """Give locked questions to a reviewer; answers with those they have now.

    The rest went to somebody else after the queue was read and before they were locked.
    """
    if not suggestion_ids:
        return set()
    insertion = insert(review_leases).values(
        [
            {"suggestion_id": suggestion_id, "library_id": library_id, "reviewer": reviewer, "leased_until": until}
            for suggestion_id in sorted(suggestion_ids)
        ]
    )
    rows = await tx.rows(
        insertion.on_conflict_do_update(
            index_elements=["suggestion_id"],
            set_={"reviewer": reviewer, "leased_until": until},
            where=or_(review_leases.c.leased_until <= now, review_leases.c.reviewer == reviewer),
        ).returning(review_leases.c.suggestion_id)
    )
    return {row.suggestion_id for row in rows}


async def end_leases(tx: Transaction, face_ids: Collection[UUID]) -> None:
    """End the leases of what is no question any more about these faces, whose suggestions are locked."""
    closed = select(suggestions.c.suggestion_id).where(
        suggestions.c.face_id == func.any(list(face_ids)), suggestions.c.state != SuggestionState.PENDING.value
    )
    await tx.execute(delete(review_leases).where(review_leases.c.suggestion_id.in_(closed)))
