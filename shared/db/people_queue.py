"""Persons whose summary and prototypes are to be brought up to their faces, soon after the transaction that queues them.

Photos belong to detection, people to persons: whoever deletes a photo, or moves it in time, takes something away from under
people, and says so here in the same transaction. The persons workers take from the queue (services/persons/settler.py). Like
the outbox, rows carry only keys: many changes of one person are settled once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Interval, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.notify import Channel, notify
from shared.db.tables_persons import persons
from shared.db.tables_shared import people_to_settle


@dataclass(frozen=True, slots=True)
class WaitingPerson:
    """A person in the queue, who is to be settled from ``due_at`` on; they have about so many faces."""

    person_id: UUID
    library_id: str
    due_at: datetime
    face_count: int


async def queue_people(tx: Transaction, clock: Clock, library_id: str, person_ids: Collection[UUID]) -> None:
    """Queue persons, in one statement, and wake a worker on commit; nothing for nobody.

    The last lock a transaction takes but for the outbox: rows are locked in the order of ids.
    """
    if not person_ids:
        return
    now = clock.now()
    rows = [{"person_id": name, "library_id": library_id, "queued_at": now} for name in sorted(person_ids)]
    # The row of one that waits already is written as it is: so a settler cannot remove it before this change is to be seen,
    # and a person who changes all the time is not put off for ever.
    await tx.execute(
        insert(people_to_settle)
        .values(rows)
        .on_conflict_do_update(index_elements=["person_id"], set_={"queued_at": people_to_settle.c.queued_at})
    )
    await notify(tx, Channel.PEOPLE)


async def list_waiting_people(
    tx: Transaction, limit: int, delay: timedelta, delay_per_face: timedelta
) -> list[WaitingPerson]:
    """Up to ``limit`` persons of the queue, who is due first first, without a lock.

    Due is who has waited for ``delay``, and for ``delay_per_face`` for each face, since their first change that is not settled:
    so one who came late may be due before many who came earlier.
    """
    face_count = func.coalesce(persons.c.face_count, 0)
    wait = literal(delay, Interval()) + literal(delay_per_face, Interval()).op("*", return_type=Interval())(face_count)
    due_at = (people_to_settle.c.queued_at + wait).label("due_at")
    rows = await tx.rows(
        select(people_to_settle.c.person_id, people_to_settle.c.library_id, due_at, face_count.label("face_count"))
        .outerjoin(persons, persons.c.person_id == people_to_settle.c.person_id)
        .order_by(due_at, people_to_settle.c.person_id)
        .limit(limit)
    )
    return [WaitingPerson(row.person_id, row.library_id, row.due_at, row.face_count) for row in rows]


async def take_people(tx: Transaction, person_ids: Collection[UUID]) -> set[UUID]:
    """Take persons who are locked out of the queue; answers who was in it.

    To be done before anything of them is read: what was queued till then is seen by every later statement of ``tx``; what
    comes later waits for ``tx`` to end, or is not there yet, and is queued anew. Nothing is lost either way. In the order in
    which writers lock rows, so that the two never wait for each other.
    """
    ordered = (
        select(people_to_settle.c.person_id)
        .where(people_to_settle.c.person_id == func.any(list(person_ids)))
        .order_by(people_to_settle.c.person_id)
        .with_for_update()
        .cte("ordered")
    )
    rows = await tx.rows(
        delete(people_to_settle)
        .where(people_to_settle.c.person_id == ordered.c.person_id)
        .returning(people_to_settle.c.person_id)
    )
    return {row.person_id for row in rows}


async def put_off_person(tx: Transaction, person_id: UUID, until: datetime) -> None:
    """Let the others in the queue go before a person."""
    await tx.execute(update(people_to_settle).where(people_to_settle.c.person_id == person_id).values(queued_at=until))


async def count_people(tx: Transaction) -> tuple[int, datetime | None]:
    """How many persons wait, and since when the first."""
    waiting = select(func.count().label("waiting"), func.min(people_to_settle.c.queued_at).label("oldest"))
    row = (await tx.rows(waiting))[0]
    return row.waiting, row.oldest
