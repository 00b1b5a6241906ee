"""SQL of ``exclusions``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.engine import Row

from services.persons.domain.model import PersonsDeps
from shared.db.engine import Transaction
from shared.db.tables_persons import exclusions
from shared.errors import NotFound


async def find_exclusion(tx: Transaction, face_id: UUID, person_id: UUID) -> UUID | None:
    """The exclusion of a pair, or None."""
    found: UUID | None = await tx.scalar(
        select(exclusions.c.exclusion_id).where(exclusions.c.face_id == face_id, exclusions.c.person_id == person_id)
    )
    return found


async def insert_exclusion(
    tx: Transaction,
    deps: PersonsDeps,
    library_id: str,
    face_id: UUID,
    person_id: UUID,
    created_by: str,
    change_id: UUID,
) -> UUID:
    """Exclude a pair whose face is locked; returns the exclusion's id, an earlier one if there is one."""
    existing = await find_exclusion(tx, face_id, person_id)
    if existing is not None:
        return existing
    exclusion_id = deps.ids.new_uuid()
    await tx.execute(
        insert(exclusions),
        {
            "exclusion_id": exclusion_id,
            "library_id": library_id,
            "face_id": face_id,
            "person_id": person_id,
            "created_by": created_by,
            "change_id": change_id,
            "created_at": deps.clock.now(),
        },
    )
    return exclusion_id


async def get_exclusion(tx: Transaction, library_id: str, exclusion_id: UUID) -> Row[Any]:
    """One row of ``exclusions``; raises :class:`NotFound`."""
    row = await tx.one_or_none(
        select(exclusions).where(exclusions.c.library_id == library_id, exclusions.c.exclusion_id == exclusion_id)
    )
    if row is None:
        raise NotFound("exclusion", str(exclusion_id))
    return row
