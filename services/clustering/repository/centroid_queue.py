"""SQL of ``centroids_to_compute``: the people whose faces changed since their centroids were computed.

Triggers on ``assignments`` and ``persons`` put them there, in the transaction that changes them, and give the row another
number. Whoever has computed centroids takes out the row with the number that stood there when the faces were read; a row that
has another number by then stays.

Rows are locked by writers who hold the persons, and some write several times in a transaction. So nothing here waits for a row:
one that is being written is left, as it will have to be computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Interval,
    Select,
    and_,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_clustering import centroid_formulas, centroids_to_compute
from shared.db.tables_detection import models
from shared.db.tables_persons import persons

waiting = centroids_to_compute.c


@dataclass(frozen=True, slots=True)
class ClaimedPerson:
    """A person whose centroids this worker is to compute; ``mark`` is the number of the last change when it was claimed."""

    person_id: UUID
    library_id: str
    mark: int


@dataclass(frozen=True, slots=True)
class Pace:
    """A person is due so long after the first change that is not computed, and later by so much for each face."""

    delay: timedelta
    delay_per_face: timedelta

    def due_at(self) -> ColumnElement[datetime]:
        """When a row is due, with its person joined."""
        wait = literal(self.delay, Interval()) + literal(self.delay_per_face, Interval()).op(
            "*", return_type=Interval()
        )(persons.c.face_count)
        return func.greatest(waiting.since + wait, func.coalesce(waiting.claimed_until, waiting.since))


async def claim_people(tx: Transaction, clock: Clock, limit: int, pace: Pace, lease: timedelta) -> list[ClaimedPerson]:
    """Take up to ``limit`` persons who are due, the oldest first, for ``lease``; others pass them over till then."""
    now = clock.now()
    due = (
        select(waiting.person_id)
        .join(persons, persons.c.person_id == waiting.person_id)
        .where(pace.due_at() <= now)
        .order_by(waiting.since, waiting.person_id)
        .limit(limit)
        .with_for_update(of=centroids_to_compute, skip_locked=True)
        .cte("due")
    )
    rows = await tx.rows(
        update(centroids_to_compute)
        .where(due.c.person_id == waiting.person_id)
        .values(claimed_until=now + lease)
        .returning(waiting.person_id, waiting.library_id, waiting.changes)
    )
    return [ClaimedPerson(row.person_id, row.library_id, row.changes) for row in rows]


async def find_next_due(tx: Transaction, pace: Pace) -> datetime | None:
    """When the next person will be due; None with nobody waiting."""
    found: datetime | None = await tx.scalar(
        select(func.min(pace.due_at()))
        .select_from(centroids_to_compute)
        .join(persons, persons.c.person_id == waiting.person_id)
    )
    return found


async def clear_people(tx: Transaction, marks: Mapping[UUID, int]) -> None:
    """Take out the persons whose rows still have these numbers: what they are about is computed."""
    if not marks:
        return
    done = _free_rows(list(marks)).cte("done")
    named = (
        func.unnest(cast(list(marks), ARRAY(UUID_TYPE(as_uuid=True))), cast(list(marks.values()), ARRAY(BigInteger)))
        .table_valued(column("person_id", UUID_TYPE(as_uuid=True)), column("mark", BigInteger), name="named")
        .render_derived()
    )
    await tx.execute(
        delete(centroids_to_compute).where(
            done.c.person_id == waiting.person_id,
            named.c.person_id == waiting.person_id,
            named.c.mark == waiting.changes,
        )
    )


async def release_people(tx: Transaction, person_ids: Sequence[UUID], since: datetime) -> None:
    """Give back those of these persons who changed again; they wait anew from ``since``, when they were claimed."""
    again = _free_rows(person_ids).cte("again")
    await tx.execute(
        update(centroids_to_compute)
        .where(again.c.person_id == waiting.person_id)
        .values(claimed_until=None, since=func.greatest(since, waiting.since))
    )


async def put_off_people(tx: Transaction, person_ids: Sequence[UUID], until: datetime) -> None:
    """Let nobody try these persons again before ``until``."""
    later = _free_rows(person_ids).cte("later")
    await tx.execute(
        update(centroids_to_compute).where(later.c.person_id == waiting.person_id).values(claimed_until=until)
    )


async def count_people(tx: Transaction) -> tuple[int, datetime | None]:
    """How many persons wait, and since when the first."""
    row = (await tx.rows(select(func.count().label("waiting"), func.min(waiting.since).label("oldest"))))[0]
    return row.waiting, row.oldest


async def list_outdated_libraries(tx: Transaction, algorithm: str) -> list[tuple[str, str]]:
    """(library, active model) of those whose people were not all queued for that model and ``algorithm`` yet."""
    rows = await tx.rows(
        select(models.c.library_id, models.c.model_version)
        .outerjoin(
            centroid_formulas,
            and_(
                centroid_formulas.c.library_id == models.c.library_id,
                centroid_formulas.c.model_version == models.c.model_version,
                centroid_formulas.c.algorithm == algorithm,
            ),
        )
        .where(models.c.state == "ACTIVE", centroid_formulas.c.library_id.is_(None))
        .order_by(models.c.library_id)
    )
    return [(row.library_id, row.model_version) for row in rows]


async def queue_library(tx: Transaction, clock: Clock, library_id: str, after: UUID | None, limit: int) -> UUID | None:
    """Put the next ``limit`` persons of a library into the queue, in order of id; answers the last, None after the end.

    They are locked first, as by all who write such rows.
    """
    wanted = select(persons.c.person_id, persons.c.library_id).where(persons.c.library_id == library_id)
    if after is not None:
        wanted = wanted.where(persons.c.person_id > after)
    held = wanted.order_by(persons.c.person_id).limit(limit).with_for_update(key_share=True).cte("held")
    columns: list[Any] = [held.c.person_id, held.c.library_id, literal(clock.now())]
    statement = insert(centroids_to_compute).from_select(
        ["person_id", "library_id", "since"], select(*columns).order_by(held.c.person_id)
    )
    rows = await tx.rows(
        statement.on_conflict_do_update(
            index_elements=["person_id"], set_={"changes": statement.excluded.changes}
        ).returning(waiting.person_id)
    )
    return max((row.person_id for row in rows), default=None)


async def note_formula(tx: Transaction, library_id: str, model_version: str, algorithm: str) -> None:
    """Note that all people of a library have been queued for a model and an algorithm."""
    values = {"model_version": model_version, "algorithm": algorithm}
    await tx.execute(
        insert(centroid_formulas)
        .values(library_id=library_id, **values)
        .on_conflict_do_update(index_elements=["library_id"], set_=values)
    )


def _free_rows(person_ids: Sequence[UUID]) -> Select[Any]:
    return (
        select(waiting.person_id)
        .where(waiting.person_id == func.any(list(person_ids)))
        .with_for_update(skip_locked=True)
    )
