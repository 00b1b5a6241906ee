"""SQL of doubles: photos that may show one person twice, and what a machine must know of a face's photo."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Boolean, Text, and_, bindparam, exists, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.metadata import TIMESTAMP
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import allowed_doubles, assignments
from shared.faces.eras import PartialDate, make_capture_date


@dataclass(frozen=True, slots=True)
class FacePhoto:
    """A face's photo as it stands to a person; ``other_face_id`` is a face of it that they have besides this one."""

    asset_id: str
    captured: PartialDate | None
    may_double: bool
    other_face_id: UUID | None


async def list_face_photos(
    tx: Transaction, library_id: str, face_ids: Collection[UUID], person_id: UUID
) -> dict[UUID, FacePhoto]:
    """The photos of locked faces as they stand to a locked person, by face; one statement."""
    other = faces.alias("other")
    other_face = (
        select(other.c.face_id)
        .join(assignments, assignments.c.face_id == other.c.face_id)
        .where(
            other.c.library_id == faces.c.library_id,
            other.c.asset_id == faces.c.asset_id,
            other.c.face_id != faces.c.face_id,
            other.c.state == "ACTIVE",
            assignments.c.person_id == person_id,
        )
        .order_by(other.c.face_id)
        .limit(1)
        .scalar_subquery()
    )
    may_double = exists().where(
        allowed_doubles.c.library_id == faces.c.library_id, allowed_doubles.c.asset_id == faces.c.asset_id
    )
    rows = await tx.rows(
        select(
            faces.c.face_id,
            faces.c.asset_id,
            assets.c.captured_at,
            assets.c.captured_precision,
            may_double.label("may_double"),
            other_face.label("other_face_id"),
        )
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .where(faces.c.library_id == library_id, faces.c.face_id == func.any(list(face_ids)))
    )
    return {
        row.face_id: FacePhoto(
            asset_id=row.asset_id,
            captured=make_capture_date(row.captured_at, row.captured_precision),
            may_double=row.may_double,
            other_face_id=row.other_face_id,
        )
        for row in rows
    }


async def lock_photos(tx: Transaction, library_id: str, asset_ids: Collection[str]) -> set[str]:
    """Lock photos, in order of id, before anything else is locked; answers with those that are registered."""
    if not asset_ids:
        return set()
    rows = await tx.rows(
        select(assets.c.asset_id)
        .where(assets.c.library_id == library_id, assets.c.asset_id == func.any(list(asset_ids)))
        .order_by(assets.c.asset_id)
        .with_for_update(key_share=True)
    )
    return {row.asset_id for row in rows}


async def read_doubles(tx: Transaction, library_id: str, asset_ids: Collection[str]) -> set[str]:
    """Which of these photos may show one person twice."""
    if not asset_ids:
        return set()
    rows = await tx.rows(
        select(allowed_doubles.c.asset_id).where(
            allowed_doubles.c.library_id == library_id, allowed_doubles.c.asset_id == func.any(list(asset_ids))
        )
    )
    return {row.asset_id for row in rows}


async def list_doubles(tx: Transaction, library_id: str, request: PageRequest) -> Page[str]:
    """Photos of a library that may show one person twice, by asset id."""
    statement = select(allowed_doubles.c.asset_id).where(allowed_doubles.c.library_id == library_id)
    rows = await tx.rows(keyset(statement, request, [SortKey(allowed_doubles.c.asset_id)]))
    return make_page(rows, request, lambda row: str(row.asset_id), lambda row: [row.asset_id])


async def write_doubles(
    tx: Transaction, clock: Clock, library_id: str, doubles: Mapping[str, bool], by: str
) -> set[str]:
    """Let locked photos show one person twice (True), or not any more (False); answers with those for which that is new."""
    rows = await tx.rows(
        _WRITE,
        {
            "library_id": library_id,
            "asset_ids": list(doubles),
            "allowed": list(doubles.values()),
            "created_by": by,
            "now": clock.now(),
        },
    )
    return {row.asset_id for row in rows}


_WRITE = text(
    """
    WITH wanted AS (
        SELECT * FROM unnest(:asset_ids, :allowed) AS t (asset_id, allowed)
    ), gone AS (
        DELETE FROM allowed_doubles d USING wanted w
        WHERE d.library_id = :library_id AND d.asset_id = w.asset_id AND NOT w.allowed
        RETURNING d.asset_id
    ), made AS (
        INSERT INTO allowed_doubles (library_id, asset_id, created_by, created_at)
        SELECT :library_id, asset_id, :created_by, :now FROM wanted WHERE allowed
        ON CONFLICT DO NOTHING
        RETURNING asset_id
    )
    SELECT asset_id FROM gone UNION ALL SELECT asset_id FROM made
    """
).bindparams(
    bindparam("library_id", type_=Text()),
    bindparam("asset_ids", type_=ARRAY(Text())),
    bindparam("allowed", type_=ARRAY(Boolean())),
    bindparam("created_by", type_=Text()),
    bindparam("now", type_=TIMESTAMP),
)
