"""SQL of ``assignments``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import and_, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row

from services.persons.domain.model import Assignment, FaceStanding, Source
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_detection import faces
from shared.db.tables_persons import assignments, exclusions


async def lock_standings(
    tx: Transaction, library_id: str, face_ids: Sequence[UUID], person_id: UUID | None
) -> dict[UUID, FaceStanding]:
    """Lock faces, in order of id, and read what decides whether they may go to ``person_id``.

    Faces that are not in this library are left out. Two statements, whatever the number.
    """
    await tx.execute(
        select(faces.c.face_id)
        .where(faces.c.library_id == library_id, faces.c.face_id == func.any(list(face_ids)))
        .order_by(faces.c.face_id)
        .with_for_update(key_share=True)
    )
    # Read only now: under READ COMMITTED this statement sees what the writers we waited for have done.
    excluded = exclusions.c.exclusion_id if person_id is not None else literal(None)
    statement = (
        select(faces.c.face_id, faces.c.state, excluded.label("exclusion_id"), *_COLUMNS)
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .where(faces.c.library_id == library_id, faces.c.face_id == func.any(list(face_ids)))
    )
    if person_id is not None:
        statement = statement.outerjoin(
            exclusions, and_(exclusions.c.face_id == faces.c.face_id, exclusions.c.person_id == person_id)
        )
    return {
        row.face_id: FaceStanding(
            face_id=row.face_id,
            state=row.state,
            excluded=row.exclusion_id is not None,
            assignment=_assignment(row) if row.person_id is not None else None,
        )
        for row in await tx.rows(statement)
    }


async def write_assignments(
    tx: Transaction,
    clock: Clock,
    library_id: str,
    person_id: UUID,
    standings: Sequence[FaceStanding],
    source: Source,
    confidence: float,
    change_id: UUID,
) -> list[Assignment]:
    """Give locked faces to a person, replacing what they have; one statement. Returns them in the order given."""
    now = clock.now()
    statement = insert(assignments).values(
        [
            {
                "face_id": standing.face_id,
                "library_id": library_id,
                "person_id": person_id,
                "source": source.value,
                "confidence": confidence,
                "version": 1,
                "change_id": change_id,
                "assigned_at": now,
            }
            for standing in standings
        ]
    )
    new = statement.excluded
    rows = await tx.rows(
        statement.on_conflict_do_update(
            index_elements=["face_id"],
            set_={
                "person_id": new.person_id,
                "source": new.source,
                "confidence": new.confidence,
                "version": assignments.c.version + 1,
                "change_id": new.change_id,
                "assigned_at": new.assigned_at,
            },
        ).returning(assignments.c.face_id, *_COLUMNS)
    )
    written = {row.face_id: _assignment(row) for row in rows}
    return [written[standing.face_id] for standing in standings]


async def delete_assignments(tx: Transaction, face_ids: Sequence[UUID]) -> None:
    """Take locked faces from their persons; their prototypes go with them."""
    await tx.execute(delete(assignments).where(assignments.c.face_id == func.any(list(face_ids))))


_COLUMNS = (
    assignments.c.person_id,
    assignments.c.source,
    assignments.c.confidence,
    assignments.c.version,
    assignments.c.assigned_at,
)


def _assignment(row: Row[Any]) -> Assignment:
    return Assignment(
        face_id=row.face_id,
        person_id=row.person_id,
        source=Source(row.source),
        confidence=row.confidence,
        version=row.version,
        assigned_at=row.assigned_at,
    )
