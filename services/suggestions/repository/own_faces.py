"""Faces of one person that somebody named: whether they are that person's, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import and_, func, select

from services.suggestions.repository.known import PHOTO_FACE, KnownPrototype, to_photo_face
from shared.db.engine import Transaction
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_persons import assignments, persons
from shared.errors import NotFound, PreconditionFailed, Reason
from shared.faces.eras import find_era, make_partial_date


async def check_own_faces(tx: Transaction, library_id: str, person_id: UUID, face_ids: Sequence[UUID]) -> None:
    """Raise :class:`NotFound` for the first unknown face, :class:`PreconditionFailed` for one that is not the person's."""
    rows = await tx.rows(
        select(faces.c.face_id, assignments.c.person_id)
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .where(faces.c.library_id == library_id, faces.c.face_id == func.any(list(face_ids)))
    )
    owners = {row.face_id: row.person_id for row in rows}
    for face_id in face_ids:
        if face_id not in owners:
            raise NotFound("face", str(face_id))
        if owners[face_id] != person_id:
            raise PreconditionFailed(
                f"face '{face_id}' is not assigned to person '{person_id}'",
                reason=Reason.FACE_NOT_ASSIGNED,
                metadata={"face_id": str(face_id)},
            )


async def list_own_faces(
    tx: Transaction, library_id: str, model_version: str, person_id: UUID, face_ids: Sequence[UUID]
) -> list[KnownPrototype]:
    """Those of these faces that are the person's, as if they were prototypes, by id; without those the model has not seen."""
    rows = await tx.rows(
        select(
            persons.c.birth_year,
            persons.c.birth_month,
            persons.c.birth_day,
            face_embeddings.c.embedding,
            *PHOTO_FACE,
        )
        .select_from(assignments)
        .join(persons, persons.c.person_id == assignments.c.person_id)
        .join(faces, faces.c.face_id == assignments.c.face_id)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .join(face_embeddings, face_embeddings.c.face_id == faces.c.face_id)
        .where(
            faces.c.library_id == library_id,
            assignments.c.face_id == func.any(list(face_ids)),
            assignments.c.person_id == person_id,
            face_embeddings.c.model_version == model_version,
        )
        .order_by(faces.c.face_id)
    )
    found = []
    for row in rows:
        face = to_photo_face(row)
        born = make_partial_date(row.birth_year, row.birth_month, row.birth_day)
        found.append(KnownPrototype(person_id, face, find_era(born, face.captured), bytes(row.embedding)))
    return found
