"""SQL that takes people out of questions and answers. Batches are in order of id, so that each is found once."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Table, Update, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB

from shared.db.engine import Transaction
from shared.db.tables_suggestions import auto_finds, reviews, suggestions

_RUNNER_UP = "runner_up_person_id"


async def delete_questions(tx: Transaction, library_id: str, person_ids: Sequence[UUID], limit: int) -> int:
    """Delete up to ``limit`` questions about these persons, or first about them, whatever their state; answers how many."""
    found = await tx.rows(
        select(suggestions.c.suggestion_id)
        .where(
            suggestions.c.library_id == library_id,
            or_(
                suggestions.c.person_id == func.any(list(person_ids)),
                suggestions.c.moved_from == func.any(list(person_ids)),
            ),
        )
        .order_by(suggestions.c.face_id, suggestions.c.person_id)
        .limit(limit)
        .with_for_update()
    )
    gone = [row.suggestion_id for row in found]
    await tx.execute(delete(suggestions).where(suggestions.c.suggestion_id == func.any(gone)))
    return len(gone)


async def delete_answers(tx: Transaction, library_id: str, person_ids: Sequence[UUID], limit: int) -> int:
    """Delete up to ``limit`` answers about these persons; answers how many."""
    found = (
        select(reviews.c.review_id)
        .where(reviews.c.library_id == library_id, reviews.c.person_id == func.any(list(person_ids)))
        .limit(limit)
    )
    return (await tx.execute(delete(reviews).where(reviews.c.review_id.in_(found)))).rowcount


async def delete_counts(tx: Transaction, library_id: str, person_ids: Sequence[UUID], limit: int) -> int:
    """Delete up to ``limit`` counts of accepted questions about these persons; answers how many.

    One that is written afterwards goes with the person.
    """
    found = (
        select(auto_finds.c.person_id)
        .where(auto_finds.c.library_id == library_id, auto_finds.c.person_id == func.any(list(person_ids)))
        .order_by(auto_finds.c.person_id)
        .limit(limit)
        .with_for_update()
    )
    return (await tx.execute(delete(auto_finds).where(auto_finds.c.person_id.in_(found)))).rowcount


async def clear_runner_up(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> dict[str, int]:
    """Take these persons out of what speaks for others, where they were next best; answers how many rows, by table."""
    changed = {}
    for table in (suggestions, reviews):
        changed[table.name] = (await tx.execute(_clearing(table, library_id, person_ids))).rowcount
    return changed


def _clearing(table: Table, library_id: str, person_ids: Sequence[UUID]) -> Update:
    names = [str(person_id) for person_id in person_ids]
    cleared = table.c.evidence.op("||")(literal({_RUNNER_UP: None}, JSONB))
    return (
        update(table)
        .where(table.c.library_id == library_id, table.c.evidence[_RUNNER_UP].astext == func.any(names))
        .values(evidence=cleared)
    )
