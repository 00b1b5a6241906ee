"""Persons whose summary and prototypes are to be brought up to their faces, soon after the transaction that queues them.

Photos belong to detection, people to persons: whoever deletes a photo, or moves it in time, takes something away from under
people, and says so here in the same transaction. The persons workers take from the queue (services/persons/settler.py). Like the
outbox, rows carry only keys: many changes of one person are settled once.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.notify import Channel, notify
from shared.db.tables_shared import people_to_settle


async def queue_people(tx: Transaction, clock: Clock, library_id: str, person_ids: Collection[UUID]) -> None:
    """Queue persons, in one statement, and wake a worker on commit; nothing for nobody.

    The last lock a transaction takes but for the outbox: rows are locked in the order of ids.
    """
    if not person_ids:
        return
    now = clock.now()
    rows = [{"person_id": name, "library_id": library_id, "queued_at": now} for name in sorted(person_ids)]
    # The row of one that waits already is written again: so a settler that is at it cannot remove it for us.
    statement = insert(people_to_settle).values(rows)
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["person_id"], set_={"queued_at": statement.excluded.queued_at}
        )
    )
    await notify(tx, Channel.PEOPLE)
