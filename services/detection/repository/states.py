"""SQL that changes what people said of a face."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, update

from services.detection.domain.model import FaceState
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_detection import faces
from shared.db.tables_persons import assignments
from shared.errors import NotFound


@dataclass(frozen=True, slots=True)
class FaceStanding:
    """A locked face's state, and whose it is (None = nobody's), with the version of that assignment."""

    state: FaceState
    person_id: UUID | None
    assignment_version: int | None


async def lock_face(tx: Transaction, library_id: str, face_id: UUID) -> FaceStanding:
    """Lock one face and read how it stands; raises :class:`NotFound`."""
    locked = await tx.scalar(
        select(faces.c.face_id)
        .where(faces.c.library_id == library_id, faces.c.face_id == face_id)
        .with_for_update(key_share=True)
    )
    if locked is None:
        raise NotFound("face", str(face_id))
    # Read only now: under READ COMMITTED this statement sees what the writers we waited for have done.
    (row,) = await tx.rows(
        select(faces.c.state, assignments.c.person_id, assignments.c.version)
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .where(faces.c.face_id == face_id)
    )
    return FaceStanding(FaceState(row.state), row.person_id, row.version)


async def write_state(tx: Transaction, clock: Clock, face_id: UUID, state: FaceState) -> None:
    """Change the state of a locked face."""
    await tx.execute(update(faces).where(faces.c.face_id == face_id).values(state=state.value, updated_at=clock.now()))
