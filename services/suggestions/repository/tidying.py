"""SQL that closes questions that are over and removes rows that are of no more use, a page of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update

from services.suggestions.domain.model import SuggestionState
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_detection import faces
from shared.db.tables_persons import assignments, exclusions, persons
from shared.db.tables_suggestions import suggestions


async def count_questions(tx: Transaction, library_id: str, states: Sequence[SuggestionState]) -> int:
    """How many suggestions of a library are in these states."""
    found: int = await tx.scalar(
        select(func.count()).where(suggestions.c.library_id == library_id, suggestions.c.state.in_(states))
    )
    return found


async def list_questions(
    tx: Transaction, library_id: str, states: Sequence[SuggestionState], after: UUID | None, limit: int
) -> list[UUID]:
    """The next suggestions in these states, by id."""
    statement = select(suggestions.c.suggestion_id).where(
        suggestions.c.library_id == library_id, suggestions.c.state.in_(states)
    )
    if after is not None:
        statement = statement.where(suggestions.c.suggestion_id > after)
    rows = await tx.rows(statement.order_by(suggestions.c.suggestion_id).limit(limit))
    return [row.suggestion_id for row in rows]


async def expire_questions(
    tx: Transaction, clock: Clock, suggestion_ids: Sequence[UUID], asked_before: datetime | None
) -> int:
    """Close those of these locked questions that are open and over; answers how many.

    Over: the face has a person or is not ACTIVE, the pair is excluded, or it was last asked before ``asked_before``. None of
    these closes is taken back by following people: only looking again asks anew.
    """
    over: list[ColumnElement[bool]] = [
        exists().where(assignments.c.face_id == suggestions.c.face_id),
        exists().where(faces.c.face_id == suggestions.c.face_id, faces.c.state != "ACTIVE"),
        exists().where(
            exclusions.c.face_id == suggestions.c.face_id, exclusions.c.person_id == suggestions.c.person_id
        ),
    ]
    if asked_before is not None:
        over.append(func.coalesce(suggestions.c.asked_at, suggestions.c.created_at) < asked_before)
    changed = await tx.execute(
        update(suggestions)
        .where(
            suggestions.c.suggestion_id == func.any(list(suggestion_ids)),
            suggestions.c.state == SuggestionState.PENDING.value,
            or_(*over),
        )
        .values(
            state=SuggestionState.EXPIRED.value,
            closed_at=clock.now(),
            dormant=False,
            version=suggestions.c.version + 1,
        )
    )
    return changed.rowcount


async def lock_pairs(tx: Transaction, suggestion_ids: Sequence[UUID]) -> None:
    """Lock suggestions by (face, person)."""
    await tx.execute(
        select(suggestions.c.suggestion_id)
        .where(suggestions.c.suggestion_id == func.any(list(suggestion_ids)))
        .order_by(suggestions.c.face_id, suggestions.c.person_id)
        .with_for_update()
    )


async def purge_questions(tx: Transaction, suggestion_ids: Sequence[UUID], closed_before: datetime) -> int:
    """Delete those of these locked suggestions whose face or person is gone, or that expired unanswered before
    ``closed_before``; answers how many.

    Dormant ones stay: their people may come back.
    """
    gone = or_(
        ~exists().where(faces.c.face_id == suggestions.c.face_id),
        ~exists().where(persons.c.person_id == suggestions.c.person_id),
    )
    spent = and_(
        suggestions.c.state == SuggestionState.EXPIRED.value,
        ~suggestions.c.dormant,
        suggestions.c.reviewed_by == "",
        suggestions.c.closed_at < closed_before,
    )
    changed = await tx.execute(
        delete(suggestions).where(suggestions.c.suggestion_id == func.any(list(suggestion_ids)), or_(gone, spent))
    )
    return changed.rowcount
