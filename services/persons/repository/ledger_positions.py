"""Positions in the ledger: what makes it possible to read on from where one was.

A change cannot know its place in the ledger while it is written: a sequence or a transaction id is taken before the commit,
so a transaction that commits late would turn up behind a reader who has passed that number; and the ids of transactions are
others in a database restored from a dump. So whoever reads gives positions first, to what is committed and has none, one
reader after the other: 1, 2, 3 in every library, and whoever has read up to one has missed nothing before it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select, update

from shared.db.engine import Database, Transaction
from shared.db.named_locks import lock_until_end
from shared.db.tables_persons import changes

BATCH: Final = 5_000
"""So many changes get their positions in one transaction."""


async def number_changes(database: Database, library_id: str) -> None:
    """Give positions to the changes committed so far; one look at an index if there are none.

    In transactions of its own, as a position counts only when it is committed. A change that is being undone at this very
    moment gets its own later: readers wait for no writer.
    """
    while True:
        async with database.transaction() as tx:
            new = select(changes.c.sequence).where(changes.c.library_id == library_id, changes.c.position.is_(None))
            if await tx.scalar(new.limit(1)) is None:
                return
            if await number_batch(tx, library_id) < BATCH:
                return


async def number_batch(tx: Transaction, library_id: str) -> int:
    """Give positions to at most ``BATCH`` changes, and let nobody else give any until the transaction ends.

    Returns how many got one.
    """
    await lock_until_end(tx, f"changes/{library_id}")
    # Read only now: this statement sees the positions given by those we waited for.
    new = (
        select(changes.c.change_id, changes.c.sequence)
        .where(changes.c.library_id == library_id, changes.c.position.is_(None))
        .order_by(changes.c.sequence)
        .limit(BATCH)
        .with_for_update(key_share=True, skip_locked=True)
        .cte("new")
    )
    place = func.row_number().over(order_by=new.c.sequence)
    numbered = select(new.c.change_id, place.label("place")).subquery("numbered")
    known = changes.alias("known")
    last = select(func.coalesce(func.max(known.c.position), 0)).where(known.c.library_id == library_id)
    done = await tx.execute(
        update(changes)
        .where(changes.c.change_id == numbered.c.change_id)
        .values(position=last.scalar_subquery() + numbered.c.place)
    )
    return done.rowcount


async def list_unnumbered(tx: Transaction) -> list[str]:
    """Libraries with changes that have no position yet."""
    found = select(changes.c.library_id).where(changes.c.position.is_(None)).distinct()
    return [row.library_id for row in await tx.rows(found.order_by(changes.c.library_id))]


async def get_last_position(tx: Transaction, library_id: str) -> int:
    """The end of the ledger as it is numbered; 0 if it is empty."""
    last: int | None = await tx.scalar(select(func.max(changes.c.position)).where(changes.c.library_id == library_id))
    return last or 0
