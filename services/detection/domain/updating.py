"""What people say of a face as such: that nobody wants to see it, that it is none, and that it is one after all.

The word stays with the face, which is found again at re-detection and so not asked about anew. What other services keep of
the face stays too, and counts for nothing while the face is not ACTIVE: its open questions and its place in a cluster come
back with it.
"""

from __future__ import annotations

from uuid import UUID

from services.detection.domain.model import DetectionDeps, Face, FaceState
from services.detection.repository.faces import get_face
from services.detection.repository.states import lock_face, write_state
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.errors import PreconditionFailed, Reason


async def set_face_state(
    tx: Transaction, deps: DetectionDeps, library_id: str, face_id: UUID, state: FaceState
) -> Face:
    """Change a face's state; the same state again changes nothing.

    Raises :class:`NotFound`, and :class:`PreconditionFailed` with FACE_ALREADY_ASSIGNED for a face that is somebody's: what
    a person has said of it is taken back by the persons service, never by this one.
    """
    standing = await lock_face(tx, library_id, face_id)
    if state is not FaceState.ACTIVE and standing.person_id is not None:
        raise PreconditionFailed(
            f"face '{face_id}' is assigned to person '{standing.person_id}'; unassign it first",
            reason=Reason.FACE_ALREADY_ASSIGNED,
            metadata={
                "face_id": str(face_id),
                "person_id": str(standing.person_id),
                "etag": str(standing.assignment_version),
            },
        )
    if standing.state is not state:
        await write_state(tx, deps.clock, face_id, state)
        await queue_faces(tx, deps.clock, library_id, [face_id])
    return await get_face(tx, library_id, face_id)
