"""What is read of the faces that a search found, and of the pairs that may not be asked about."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, exists, func, select, union_all

from services.suggestions.domain.model import SuggestionState
from services.suggestions.repository.known import PHOTO_FACE, PhotoFace, to_photo_face
from shared.db.engine import Transaction
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_persons import assignments, exclusions
from shared.db.tables_suggestions import suggestions

Pair = tuple[UUID, UUID]


@dataclass(frozen=True, slots=True)
class FoundFace:
    """An unassigned face; ``embedding`` as stored."""

    face: PhotoFace
    embedding: bytes


async def list_refused_of_persons(tx: Transaction, person_ids: Sequence[UUID]) -> set[Pair]:
    """Every (face, person) pair of these persons that was excluded or rejected."""
    rows = await tx.rows(
        union_all(
            select(exclusions.c.face_id, exclusions.c.person_id).where(
                exclusions.c.person_id == func.any(list(person_ids))
            ),
            select(suggestions.c.face_id, suggestions.c.person_id).where(
                suggestions.c.person_id == func.any(list(person_ids)),
                suggestions.c.state == SuggestionState.REJECTED.value,
            ),
        )
    )
    return {(row.face_id, row.person_id) for row in rows}


async def list_refused_of_faces(tx: Transaction, face_ids: Collection[UUID]) -> set[Pair]:
    """Every (face, person) pair of these faces that was excluded or rejected."""
    rows = await tx.rows(
        union_all(
            select(exclusions.c.face_id, exclusions.c.person_id).where(
                exclusions.c.face_id == func.any(list(face_ids))
            ),
            select(suggestions.c.face_id, suggestions.c.person_id).where(
                suggestions.c.face_id == func.any(list(face_ids)),
                suggestions.c.state == SuggestionState.REJECTED.value,
            ),
        )
    )
    return {(row.face_id, row.person_id) for row in rows}


async def list_open_pairs(tx: Transaction, person_ids: Sequence[UUID]) -> set[Pair]:
    """The (face, person) pairs of these persons that are being asked about: the face active, without a person."""
    rows = await tx.rows(
        select(suggestions.c.face_id, suggestions.c.person_id)
        .join(faces, faces.c.face_id == suggestions.c.face_id)
        .outerjoin(assignments, assignments.c.face_id == suggestions.c.face_id)
        .where(
            suggestions.c.person_id == func.any(list(person_ids)),
            suggestions.c.state == SuggestionState.PENDING.value,
            faces.c.state == "ACTIVE",
            assignments.c.face_id.is_(None),
            ~exists().where(
                exclusions.c.face_id == suggestions.c.face_id, exclusions.c.person_id == suggestions.c.person_id
            ),
        )
    )
    return {(row.face_id, row.person_id) for row in rows}


async def list_found_faces(
    tx: Transaction, library_id: str, model_version: str, face_ids: Collection[UUID]
) -> list[FoundFace]:
    """Those of these faces that are active and unassigned in truth, with their vectors of one model, by id."""
    rows = await tx.rows(
        select(face_embeddings.c.embedding, *PHOTO_FACE)
        .select_from(faces)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .join(face_embeddings, face_embeddings.c.face_id == faces.c.face_id)
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.face_id == func.any(list(face_ids)),
            faces.c.state == "ACTIVE",
            face_embeddings.c.model_version == model_version,
            assignments.c.face_id.is_(None),
        )
        .order_by(faces.c.face_id)
    )
    return [FoundFace(to_photo_face(row), bytes(row.embedding)) for row in rows]


async def list_shown_persons(
    tx: Transaction,
    library_id: str,
    asset_ids: Collection[str],
    person_ids: Sequence[UUID],
    without_face: UUID | None = None,
) -> set[tuple[str, UUID]]:
    """In which of these photos which of these persons have a face already, ``without_face``: (asset, person) pairs."""
    rows = await tx.rows(
        select(faces.c.asset_id, assignments.c.person_id)
        .join(assignments, assignments.c.face_id == faces.c.face_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.asset_id == func.any(sorted(asset_ids)),
            assignments.c.person_id == func.any(list(person_ids)),
            *([] if without_face is None else [faces.c.face_id != without_face]),
        )
        .distinct()
    )
    return {(row.asset_id, row.person_id) for row in rows}
