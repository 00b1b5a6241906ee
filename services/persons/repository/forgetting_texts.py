"""SQL that takes a person out of texts of this service: why people said they did something."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select, update

from shared.db.engine import Transaction
from shared.db.tables_persons import changes
from shared.traces import Traces


async def scrub_reasons(
    tx: Transaction, library_id: str, traces: Traces, after: UUID | None, limit: int
) -> tuple[int, UUID | None]:
    """Take the person out of the reasons of the next ``limit`` changes that may name them, whomever they are about.

    Answers how many changed, and the last one looked at; None after the last of all.
    """
    statement = select(changes.c.change_id, changes.c.reason).where(
        changes.c.library_id == library_id, changes.c.reason.regexp_match(traces.sql_pattern, "i")
    )
    if after is not None:
        statement = statement.where(changes.c.change_id > after)
    rows = await tx.rows(statement.order_by(changes.c.change_id).limit(limit).with_for_update(key_share=True))
    cleaned = {
        row.change_id: traces.clean_text(row.reason) for row in rows if traces.clean_text(row.reason) != row.reason
    }
    for change_id, reason in cleaned.items():
        await tx.execute(update(changes).where(changes.c.change_id == change_id).values(reason=reason))
    return len(cleaned), rows[-1].change_id if len(rows) == limit else None
