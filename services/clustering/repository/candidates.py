"""What is known in PostgreSQL about faces a search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, exists, func, select

from shared.db.engine import Transaction
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments, exclusions, persons
from shared.faces.eras import PartialDate, make_capture_date, make_partial_date
from shared.faces.near_duplicates import FacePlace, PhotoStamp

HASH_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where a face is, and when and what its photo is; ``captured``: the day, as far as it is known."""

    face_id: UUID
    place: FacePlace
    photo: PhotoStamp
    captured: PartialDate | None


async def list_excluded_faces(tx: Transaction, person_id: UUID, limit: int) -> list[UUID]:
    """The last ``limit`` faces that a human said are not this person."""
    rows = await tx.rows(
        select(exclusions.c.face_id)
        .where(exclusions.c.person_id == person_id)
        .order_by(exclusions.c.exclusion_id.desc())
        .limit(limit)
    )
    return [row.face_id for row in rows]


async def read_birth_date(tx: Transaction, person_id: UUID) -> PartialDate | None:
    """As much of a person's birth date as is known."""
    row = await tx.one_or_none(
        select(persons.c.birth_year, persons.c.birth_month, persons.c.birth_day).where(persons.c.person_id == person_id)
    )
    return None if row is None else make_partial_date(row.birth_year, row.birth_month, row.birth_day)


async def read_candidates(
    tx: Transaction, library_id: str, person_id: UUID, face_ids: Sequence[UUID]
) -> dict[UUID, Candidate]:
    """Those of the faces that are still ACTIVE and without a person, and not excluded from this one."""
    rows = await tx.rows(
        select(
            faces.c.face_id,
            faces.c.asset_id,
            faces.c.box_x,
            faces.c.box_y,
            faces.c.box_width,
            faces.c.box_height,
            assets.c.width,
            assets.c.height,
            assets.c.difference_hash,
            assets.c.captured_at,
            assets.c.captured_precision,
        )
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.face_id == func.any(list(face_ids)),
            faces.c.state == "ACTIVE",
            assignments.c.face_id.is_(None),
            ~exists().where(exclusions.c.face_id == faces.c.face_id, exclusions.c.person_id == person_id),
        )
    )
    return {
        row.face_id: Candidate(
            row.face_id,
            FacePlace(
                face_id=str(row.face_id),
                asset_id=row.asset_id,
                box=(row.box_x, row.box_y, row.box_width, row.box_height),
                # Imported photos may come without a size; then only the box itself can be compared.
                width=row.width or 1,
                height=row.height or 1,
            ),
            PhotoStamp(
                asset_id=row.asset_id,
                # Stored as the signed integer of the same bits.
                dhash=None if row.difference_hash is None else row.difference_hash & HASH_BITS,
                # Photos dated only to the day did not all happen at its first moment.
                captured_at=row.captured_at if row.captured_precision in {None, "SECOND"} else None,
            ),
            make_capture_date(row.captured_at, row.captured_precision),
        )
        for row in rows
    }
