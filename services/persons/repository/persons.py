"""SQL of ``persons``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, and_, bindparam, case, exists, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Row

from services.persons.domain.model import Person, PersonStatus
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.named_locks import lock_until_end
from shared.db.query import Query
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import LIVING, assignments, persons
from shared.errors import NotFound
from shared.faces.eras import make_partial_date


async def get_person(tx: Transaction, library_id: str, person_id: UUID, *, lock: bool = False) -> Person:
    """One person; raises :class:`NotFound`. ``lock`` keeps others from changing the row until the transaction ends."""
    statement = select(persons).where(persons.c.library_id == library_id, persons.c.person_id == person_id)
    row = await tx.one_or_none(statement.with_for_update(key_share=True) if lock else statement)
    if row is None:
        raise NotFound("person", str(person_id))
    return to_person(row)


async def lock_persons(
    tx: Transaction, library_id: str, person_ids: Collection[UUID], *, skip_locked: bool = False
) -> dict[UUID, Person]:
    """Lock persons, in order of id, and read them; those of other libraries are left alone, and with ``skip_locked`` those
    whom somebody else holds.
    """
    if not person_ids:
        return {}
    statement = _LOCK_FREE if skip_locked else _LOCK
    rows = await tx.rows(statement, {"library_id": library_id, "person_ids": list(person_ids)})
    return {row.person_id: to_person(row) for row in rows}


_NAMED = (
    select(persons)
    .where(
        persons.c.library_id == bindparam("library_id"),
        persons.c.person_id == func.any(bindparam("person_ids", type_=ARRAY(Uuid()))),
    )
    .order_by(persons.c.person_id)
)
_LOCK = Query(_NAMED.with_for_update(key_share=True))
_LOCK_FREE = Query(_NAMED.with_for_update(key_share=True, skip_locked=True))


async def insert_person(
    tx: Transaction, clock: Clock, library_id: str, person_id: UUID, columns: Mapping[str, Any]
) -> Person:
    """Add a person."""
    now = clock.now()
    row = {"person_id": person_id, "library_id": library_id, "created_at": now, "updated_at": now, **columns}
    return to_person((await tx.rows(insert(persons).values(row).returning(persons)))[0])


async def update_person_row(tx: Transaction, clock: Clock, person_id: UUID, columns: Mapping[str, Any]) -> Person:
    """Change columns a human may edit of a locked person; the etag changes with them."""
    changed = (
        update(persons)
        .where(persons.c.person_id == person_id)
        .values(**columns, version=persons.c.version + 1, updated_at=clock.now())
        .returning(persons)
    )
    return to_person((await tx.rows(changed))[0])


async def find_same_names(tx: Transaction, library_id: str, name_key: str, but: UUID) -> list[UUID]:
    """Other living persons with the same name, at most 20."""
    rows = await tx.rows(
        select(persons.c.person_id)
        .where(
            persons.c.library_id == library_id,
            persons.c.name_key == name_key,
            persons.c.person_id != but,
            LIVING,
        )
        .order_by(persons.c.person_id)
        .limit(20)
    )
    return [row.person_id for row in rows]


async def lock_name(tx: Transaction, library_id: str, name_key: str) -> None:
    """Keep others from looking for, and then creating, a person of this name until the transaction ends.

    Taken before any row is locked.
    """
    await lock_until_end(tx, f"names/{library_id}/{name_key}")


async def find_named(tx: Transaction, library_id: str, name_key: str) -> UUID | None:
    """The living person of this name; of several the one with the most faces."""
    found: UUID | None = await tx.scalar(
        select(persons.c.person_id)
        .where(
            persons.c.library_id == library_id,
            persons.c.name_key == name_key,
            LIVING,
        )
        .order_by(persons.c.face_count.desc(), persons.c.person_id)
        .limit(1)
    )
    return found


async def has_face(tx: Transaction, person_id: UUID, face_id: UUID) -> bool:
    """Whether a face is assigned to a person."""
    held = exists().where(assignments.c.face_id == face_id, assignments.c.person_id == person_id)
    return bool(await tx.scalar(select(held)))


# Whether the cover that was chosen for a person is of a face of theirs.
_HOLDS_CHOSEN = exists().where(
    assignments.c.face_id == persons.c.chosen_cover, assignments.c.person_id == persons.c.person_id
)


async def refresh_summaries(tx: Transaction, person_ids: Sequence[UUID]) -> None:
    """Make face count, dates and cover of these persons what their assignments say, in one statement.

    The cover that was chosen is shown while its face is the person's, otherwise the best face by quality.
    """
    held = (
        select(
            assignments.c.person_id,
            func.count().label("face_count"),
            func.min(assets.c.captured_at).label("first_seen"),
            func.max(assets.c.captured_at).label("last_seen"),
            # The best face: the first of an array in order of quality.
            func.array_agg(text("faces.face_id ORDER BY faces.quality DESC, faces.face_id"))[1].label("best"),
        )
        .join(faces, faces.c.face_id == assignments.c.face_id)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .where(assignments.c.person_id == func.any(list(person_ids)))
        .group_by(assignments.c.person_id)
        .subquery()
    )
    target = select(persons.c.person_id, held.c.face_count, held.c.first_seen, held.c.last_seen, held.c.best)
    joined = (
        target.select_from(persons.outerjoin(held, held.c.person_id == persons.c.person_id))
        .where(persons.c.person_id == func.any(list(person_ids)))
        .subquery("summary")
    )
    await tx.execute(
        update(persons)
        .where(persons.c.person_id == joined.c.person_id)
        .values(
            face_count=func.coalesce(joined.c.face_count, 0),
            first_seen=joined.c.first_seen,
            last_seen=joined.c.last_seen,
            cover_face_id=case((_HOLDS_CHOSEN, persons.c.chosen_cover), else_=joined.c.best),
        )
    )


async def show_chosen_covers(tx: Transaction, person_ids: Collection[UUID]) -> None:
    """Show the covers that were chosen for these persons, where they hold them; in one statement that reads no other face."""
    await tx.execute(
        update(persons)
        .where(persons.c.person_id == func.any(list(person_ids)), _HOLDS_CHOSEN)
        .values(cover_face_id=persons.c.chosen_cover)
    )


@dataclass(frozen=True, slots=True)
class MoveCounts:
    """Face counts of all whom a change touched, and those of them who have no prototype."""

    faces: dict[UUID, int]
    bare: set[UUID]


async def count_moves(tx: Transaction, change_id: UUID, face_ids: Collection[UUID] | None = None) -> MoveCounts:
    """Let face counts and dates follow what a change did to faces, to all or to ``face_ids``; answers with the new counts of
    all it touched, who kept a face with another word on it as a prototype too.

    A count is exact, and so is a date that a new face sets; one that went with a face, and the cover, are for
    :func:`refresh_summaries` to find.
    """
    only = None if face_ids is None else list(face_ids)
    rows = await tx.rows(_COUNT_MOVES, {"change_id": change_id, "only": only})
    return MoveCounts({row.person_id: row.face_count for row in rows}, {row.person_id for row in rows if row.bare})


_COUNT_MOVES = Query(
    text(
        """
    UPDATE persons SET
        face_count = persons.face_count + d.delta,
        first_seen = least(persons.first_seen, d.first),
        last_seen = greatest(persons.last_seen, d.last)
    FROM (
        SELECT person_id, sum(delta)::int AS delta, min(captured_at) AS first, max(captured_at) AS last FROM (
            SELECT c.after_person AS person_id, 1 AS delta, a.captured_at
            FROM change_faces c
            JOIN faces f ON f.face_id = c.face_id
            JOIN assets a ON a.library_id = f.library_id AND a.asset_id = f.asset_id
            WHERE c.change_id = :change_id AND c.after_person IS DISTINCT FROM c.before_person
                AND (:only IS NULL OR c.face_id = ANY(:only))
            UNION ALL
            SELECT c.before_person, -1, NULL FROM change_faces c
            WHERE c.change_id = :change_id AND c.after_person IS DISTINCT FROM c.before_person
                AND (:only IS NULL OR c.face_id = ANY(:only))
            UNION ALL
            SELECT c.after_person, 0, NULL FROM change_faces c
            WHERE c.change_id = :change_id AND c.after_person = c.before_person
                AND c.after_choice IS DISTINCT FROM c.before_choice
                AND (:only IS NULL OR c.face_id = ANY(:only))
        ) AS moved
        WHERE person_id IS NOT NULL GROUP BY person_id
    ) AS d
    WHERE persons.person_id = d.person_id
    RETURNING persons.person_id, persons.face_count,
        NOT EXISTS (SELECT FROM prototypes p WHERE p.person_id = persons.person_id) AS bare
    """
    ).bindparams(bindparam("change_id", type_=Uuid()), bindparam("only", type_=ARRAY(Uuid())))
)


_STATUSES = {status.value: status for status in PersonStatus}


def to_person(row: Row[Any]) -> Person:
    """A row of ``persons`` as the domain sees it."""
    return Person(
        person_id=row.person_id,
        library_id=row.library_id,
        name=row.name,
        status=_STATUSES[row.status],
        birth_date=make_partial_date(row.birth_year, row.birth_month, row.birth_day) if row.birth_year else None,
        merged_into=row.merged_into,
        cover_face_id=row.cover_face_id,
        chosen_cover=row.chosen_cover,
        notes=row.notes,
        external_ids=row.external_ids,
        face_count=row.face_count,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
    )
