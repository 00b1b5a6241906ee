"""SQL of ``exclusions``. Every one that is made, moved or taken back is entered into the ledger by the same statement."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Row
from sqlalchemy.types import Text

from shared.db.engine import Transaction
from shared.db.metadata import TIMESTAMP
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_persons import exclusions
from shared.errors import NotFound


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A face that is not a person, as a human said."""

    exclusion_id: UUID
    face_id: UUID
    person_id: UUID
    created_by: str
    created_at: datetime


async def find_exclusion(tx: Transaction, face_id: UUID, person_id: UUID) -> Exclusion | None:
    """The exclusion of a pair, or None."""
    row = await tx.one_or_none(
        select(exclusions).where(exclusions.c.face_id == face_id, exclusions.c.person_id == person_id)
    )
    return None if row is None else _exclusion(row)


async def get_exclusion(tx: Transaction, library_id: str, exclusion_id: UUID) -> Exclusion:
    """One exclusion; raises :class:`NotFound`."""
    row = await tx.one_or_none(
        select(exclusions).where(exclusions.c.library_id == library_id, exclusions.c.exclusion_id == exclusion_id)
    )
    if row is None:
        raise NotFound("exclusion", str(exclusion_id))
    return _exclusion(row)


async def list_exclusions_of(tx: Transaction, face_ids: Collection[UUID]) -> dict[tuple[UUID, UUID], Exclusion]:
    """Every exclusion of these faces, by face and person."""
    rows = await tx.rows(select(exclusions).where(exclusions.c.face_id == func.any(list(face_ids))))
    return {(row.face_id, row.person_id): _exclusion(row) for row in rows}


async def list_exclusions(
    tx: Transaction, library_id: str, request: PageRequest, person_id: UUID | None, face_id: UUID | None
) -> Page[Exclusion]:
    """Exclusions of a library, oldest first; of a person, of a face, or both."""
    statement = select(exclusions).where(exclusions.c.library_id == library_id)
    if person_id is not None:
        statement = statement.where(exclusions.c.person_id == person_id)
    if face_id is not None:
        statement = statement.where(exclusions.c.face_id == face_id)
    rows = await tx.rows(keyset(statement, request, [SortKey(exclusions.c.exclusion_id)]))
    return make_page(rows, request, _exclusion, lambda row: [row.exclusion_id])


async def list_exclusions_from(tx: Transaction, person_ids: Collection[UUID]) -> dict[UUID, list[Exclusion]]:
    """Every exclusion from these locked persons, by person."""
    found: dict[UUID, list[Exclusion]] = {}
    if person_ids:
        for row in await tx.rows(select(exclusions).where(exclusions.c.person_id == func.any(list(person_ids)))):
            found.setdefault(row.person_id, []).append(_exclusion(row))
    return found


async def make_exclusions(tx: Transaction, library_id: str, change_id: UUID, made: Sequence[Exclusion]) -> None:
    """Exclude pairs whose faces are locked. A pair that is excluded already stays so, with its own id."""
    if made:
        await tx.execute(
            _MAKE,
            {
                "library_id": library_id,
                "change_id": change_id,
                "exclusion_ids": [row.exclusion_id for row in made],
                "face_ids": [row.face_id for row in made],
                "person_ids": [row.person_id for row in made],
                "created_by": [row.created_by for row in made],
                "created_at": [row.created_at for row in made],
            },
        )


async def take_back_exclusions(tx: Transaction, change_id: UUID, exclusion_ids: Collection[UUID]) -> None:
    """Remove exclusions."""
    if exclusion_ids:
        await tx.execute(_TAKE_BACK, {"change_id": change_id, "exclusion_ids": list(exclusion_ids)})


async def move_exclusions(
    tx: Transaction, change_id: UUID, from_person: UUID, to_person: UUID, dropped: Collection[UUID]
) -> int:
    """Make what is excluded from one locked person excluded from another, and count it.

    ``dropped`` are faces that are the other person's for certain: nothing is excluded from either for them any more.
    """
    moved: int = await tx.scalar(
        _MOVE,
        {"change_id": change_id, "from_person": from_person, "to_person": to_person, "dropped": list(dropped)},
    )
    return moved


def _exclusion(row: Row[Any]) -> Exclusion:
    return Exclusion(row.exclusion_id, row.face_id, row.person_id, row.created_by, row.created_at)


_UUIDS = ARRAY(Uuid())
_ENTER = """
    INSERT INTO change_exclusions (change_id, face_id, person_id, exclusion_id, made, created_by, created_at)
    SELECT CAST(:change_id AS uuid), face_id, person_id, exclusion_id, {made}, created_by, created_at FROM {rows}
    ON CONFLICT DO NOTHING
"""

_MAKE = text(
    """
    WITH made AS (
        INSERT INTO exclusions (exclusion_id, library_id, face_id, person_id, created_by, change_id, created_at)
        SELECT exclusion_id, :library_id, face_id, person_id, created_by, CAST(:change_id AS uuid), created_at
        FROM unnest(:exclusion_ids, :face_ids, :person_ids, :created_by, :created_at)
            AS t (exclusion_id, face_id, person_id, created_by, created_at)
        ON CONFLICT (face_id, person_id) DO NOTHING
        RETURNING exclusion_id, face_id, person_id, created_by, created_at
    )
    """
    + _ENTER.format(made="true", rows="made")
).bindparams(
    bindparam("exclusion_ids", type_=_UUIDS),
    bindparam("face_ids", type_=_UUIDS),
    bindparam("person_ids", type_=_UUIDS),
    bindparam("created_by", type_=ARRAY(Text())),
    bindparam("created_at", type_=ARRAY(TIMESTAMP)),
)

_TAKE_BACK = text(
    """
    WITH gone AS (
        DELETE FROM exclusions WHERE exclusion_id = ANY(:exclusion_ids)
        RETURNING exclusion_id, face_id, person_id, created_by, created_at
    )
    """
    + _ENTER.format(made="false", rows="gone")
).bindparams(bindparam("exclusion_ids", type_=_UUIDS))

_MOVE = text(
    """
    WITH gone AS (
        DELETE FROM exclusions e
        WHERE e.person_id = :from_person AND (e.face_id = ANY(:dropped)
                OR EXISTS (SELECT FROM exclusions o WHERE o.face_id = e.face_id AND o.person_id = :to_person))
            OR e.person_id = :to_person AND e.face_id = ANY(:dropped)
        RETURNING exclusion_id, face_id, person_id, created_by, created_at
    ), moved AS (
        UPDATE exclusions e SET person_id = :to_person, change_id = :change_id
        WHERE e.person_id = :from_person AND NOT (e.face_id = ANY(:dropped))
            AND NOT EXISTS (SELECT FROM exclusions o WHERE o.face_id = e.face_id AND o.person_id = :to_person)
        RETURNING exclusion_id, face_id, person_id, created_by, created_at
    ), entered_gone AS (
    """
    + _ENTER.format(made="false", rows="gone")
    + """
    ), entered_left AS (
    """
    + _ENTER.format(
        made="false",
        rows="(SELECT exclusion_id, face_id, CAST(:from_person AS uuid) AS person_id, created_by, created_at FROM moved) l",
    )
    + """
    ), entered_moved AS (
    """
    + _ENTER.format(made="true", rows="moved")
    + """
    )
    SELECT count(*) FROM moved
    """
).bindparams(
    bindparam("change_id", type_=Uuid()),
    bindparam("from_person", type_=Uuid()),
    bindparam("to_person", type_=Uuid()),
    bindparam("dropped", type_=_UUIDS),
)
