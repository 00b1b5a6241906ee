"""SQL of ``prototypes``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, delete, func, insert, or_, select

from services.persons.domain.model import Prototype
from shared.db.engine import Transaction
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_persons import assignments, persons, prototypes
from shared.faces.eras import Era, PartialDate, make_capture_date, make_partial_date
from shared.faces.prototypes import PrototypeRole


@dataclass(frozen=True, slots=True)
class PersonFace:
    """A face of a person, with what choosing prototypes needs."""

    face_id: UUID
    person_id: UUID
    asset_id: str
    quality: float
    embedding: bytes
    birth_date: PartialDate | None
    captured: PartialDate | None


async def list_prototypes(tx: Transaction, person_ids: Sequence[UUID]) -> list[Prototype]:
    """The prototypes of these persons: pinned ones first, then by role, then best first."""
    ranks = {role.value: rank for rank, role in enumerate(PrototypeRole)}
    rows = await tx.rows(select(prototypes).where(prototypes.c.person_id == func.any(list(person_ids))))
    found = [
        Prototype(
            face_id=row.face_id,
            person_id=row.person_id,
            role=PrototypeRole(row.role),
            era=Era(row.era) if row.era else None,
            pinned=row.pinned,
            quality=row.quality,
            created_at=row.created_at,
        )
        for row in rows
    ]
    return sorted(
        found, key=lambda row: (row.person_id, not row.pinned, ranks[row.role.value], -row.quality, row.face_id)
    )


async def list_best_faces(
    tx: Transaction, library_id: str, person_ids: Sequence[UUID], per_person: int
) -> list[PersonFace]:
    """The best active faces of each person by quality, and every pinned one, with the active model's embeddings."""
    position = func.row_number().over(
        partition_by=assignments.c.person_id, order_by=(faces.c.quality.desc(), faces.c.face_id)
    )
    ranked = (
        select(
            assignments.c.person_id,
            faces.c.face_id,
            faces.c.asset_id,
            faces.c.library_id,
            faces.c.quality,
            prototypes.c.pinned,
            position.label("position"),
        )
        .join(faces, faces.c.face_id == assignments.c.face_id)
        .outerjoin(prototypes, prototypes.c.face_id == faces.c.face_id)
        .where(assignments.c.person_id == func.any(list(person_ids)), faces.c.state == "ACTIVE")
        .subquery("ranked")
    )
    rows = await tx.rows(
        select(
            ranked.c.face_id,
            ranked.c.person_id,
            ranked.c.asset_id,
            ranked.c.quality,
            face_embeddings.c.embedding,
            persons.c.birth_year,
            persons.c.birth_month,
            persons.c.birth_day,
            assets.c.captured_at,
            assets.c.captured_precision,
        )
        .join(persons, persons.c.person_id == ranked.c.person_id)
        .join(assets, and_(assets.c.library_id == ranked.c.library_id, assets.c.asset_id == ranked.c.asset_id))
        .join(models, and_(models.c.library_id == library_id, models.c.state == "ACTIVE"))
        .join(
            face_embeddings,
            and_(
                face_embeddings.c.face_id == ranked.c.face_id,
                face_embeddings.c.model_version == models.c.model_version,
            ),
        )
        .where(or_(ranked.c.position <= per_person, ranked.c.pinned.is_(True)))
        .order_by(ranked.c.person_id, ranked.c.quality.desc(), ranked.c.face_id)
    )
    return [
        PersonFace(
            face_id=row.face_id,
            person_id=row.person_id,
            asset_id=row.asset_id,
            quality=row.quality,
            embedding=bytes(row.embedding),
            birth_date=make_partial_date(row.birth_year, row.birth_month, row.birth_day),
            captured=make_capture_date(row.captured_at, row.captured_precision),
        )
        for row in rows
    ]


async def replace_prototypes(
    tx: Transaction, library_id: str, person_ids: Sequence[UUID], chosen: Sequence[Prototype]
) -> None:
    """Make these the prototypes of these persons, and no others."""
    await tx.execute(delete(prototypes).where(prototypes.c.person_id == func.any(list(person_ids))))
    if chosen:
        await tx.execute(
            insert(prototypes),
            [
                {
                    "face_id": row.face_id,
                    "library_id": library_id,
                    "person_id": row.person_id,
                    "role": row.role.value,
                    "era": row.era.value if row.era else None,
                    "pinned": row.pinned,
                    "quality": row.quality,
                    "created_at": row.created_at,
                }
                for row in chosen
            ],
        )
