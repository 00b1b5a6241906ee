"""SQL that finds the faces of people who are being forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Uuid, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from shared.db.engine import Transaction
from shared.db.tables_detection import faces


@dataclass(frozen=True, slots=True)
class FaceOfPhoto:
    """A face and the photo it is on."""

    face_id: UUID
    asset_id: str


# Of one who was deleted softly before: the faces that the deletion took away and that nobody has got since.
_FOUND = """
    FROM (
        SELECT face_id FROM assignments WHERE library_id = :library_id AND person_id = ANY(:person_ids)
        UNION
        SELECT m.face_id
        FROM changes c JOIN change_faces m ON m.change_id = c.change_id
        WHERE c.library_id = :library_id AND c.person_ids && :person_ids AND c.undone_by IS NULL
            AND EXISTS (SELECT FROM unnest(:person_ids) AS p (id) WHERE m.before_person = p.id
                AND c.after #>> ARRAY['persons', p.id::text, 'deleted'] = 'true')
            AND NOT EXISTS (SELECT FROM assignments a WHERE a.face_id = m.face_id)
    ) AS theirs
    JOIN faces f ON f.face_id = theirs.face_id
"""
_PEOPLE = bindparam("person_ids", type_=ARRAY(Uuid()))
_THEIRS = text(f"SELECT f.face_id, f.asset_id {_FOUND} ORDER BY f.asset_id, f.face_id LIMIT :limit").bindparams(_PEOPLE)
_COUNT = text(f"SELECT count(*) {_FOUND}").bindparams(_PEOPLE)


async def list_faces_of(tx: Transaction, library_id: str, person_ids: Sequence[UUID], limit: int) -> list[FaceOfPhoto]:
    """The next faces that are these persons', or were when they were put away; by photo."""
    rows = await tx.rows(_THEIRS, {"library_id": library_id, "person_ids": list(person_ids), "limit": limit})
    return [FaceOfPhoto(row.face_id, row.asset_id) for row in rows]


async def count_faces_of(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> int:
    """How many faces :func:`list_faces_of` would list in all."""
    found: int = await tx.scalar(_COUNT, {"library_id": library_id, "person_ids": list(person_ids)})
    return found


async def lock_faces(tx: Transaction, face_ids: Sequence[UUID]) -> None:
    """Lock faces of locked photos against change, in order of id, but not yet against being referred to."""
    await tx.execute(
        select(faces.c.face_id)
        .where(faces.c.face_id == func.any(list(face_ids)))
        .order_by(faces.c.face_id)
        .with_for_update(key_share=True)
    )
