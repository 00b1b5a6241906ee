"""Deleting the faces of people who are being forgotten, with everything that was kept of those faces.

The photos stay, and so does the fact that they were looked at: nothing finds the faces again by itself. Whoever has a photo
detected once more (``redetect``) gets them anew, as faces of nobody; that is not remembered, since remembering a face so as not
to see it again would mean to keep it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.detection.domain.model import DetectionDeps
from services.detection.repository.forgetting import list_faces_of, lock_faces
from services.detection.repository.found import delete_faces
from services.detection.repository.importing import add_face_counts
from services.detection.repository.removing import lock_photos_to_delete
from shared.db.engine import Transaction
from shared.db.outbox import PointKind, queue_points
from shared.db.people_queue import queue_people


@dataclass(frozen=True, slots=True)
class FacesForgotten:
    """How many faces a batch found, how many of them it deleted, and how many vectors of each model."""

    found: int
    faces: int
    vectors: Counter[str]


async def forget_faces(
    tx: Transaction, deps: DetectionDeps, library_id: str, person_ids: Sequence[UUID], limit: int
) -> FacesForgotten:
    """Delete up to ``limit`` faces of these persons. There are no more only once none is found: of those found all may be gone
    before their locks are had, while there are others.

    A fixed number of statements. Embeddings, assignments, exclusions, suggestions and memberships go along; points are
    tombstoned.
    """
    found = await list_faces_of(tx, library_id, person_ids, limit)
    await lock_photos_to_delete(tx, library_id, sorted({face.asset_id for face in found}))
    await lock_faces(tx, [face.face_id for face in found])
    # Looked up again: somebody may have taken a face from them, or a photo away, while we waited.
    still = {face.face_id for face in await list_faces_of(tx, library_id, person_ids, limit)}
    theirs = [face for face in found if face.face_id in still]
    gone = await delete_faces(tx, sorted(face.face_id for face in theirs))
    counts = Counter(face.asset_id for face in theirs)
    if counts:
        await add_face_counts(tx, deps.clock, library_id, {name: -count for name, count in counts.items()})
    others = set(gone.person_ids) - set(person_ids)
    await queue_people(tx, deps.clock, library_id, others)
    await queue_points(tx, deps.clock, PointKind.FACE, library_id, gone.points)
    return FacesForgotten(len(found), len(theirs), Counter(version for _, version in gone.points))
