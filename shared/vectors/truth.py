"""What a point should be: read from PostgreSQL, many at once. The relay writes it, the doctor compares with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.engine import Row

from shared.db.engine import Transaction
from shared.db.outbox import PointKind
from shared.db.tables_clustering import centroids, cluster_members
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_persons import assignments, prototypes
from shared.faces.embeddings import decode_embedding


@dataclass(frozen=True, slots=True)
class Point:
    """A point as Qdrant should hold it. ``vector``: float32, (dimension,), unit length."""

    point_id: UUID
    vector: NDArray[np.float32]
    payload: dict[str, Any]


async def read_points(
    tx: Transaction, kind: PointKind, model_version: str, point_ids: Collection[UUID]
) -> dict[UUID, Point]:
    """The points of these ids that exist, in one statement."""
    if kind is PointKind.FACE:
        statement = _face_points(
            face_embeddings.c.model_version == model_version, face_embeddings.c.face_id == func.any(list(point_ids))
        )
        return {row.face_id: _face_point(row) for row in await tx.rows(statement)}
    statement = select(centroids).where(
        centroids.c.model_version == model_version, centroids.c.centroid_id == func.any(list(point_ids))
    )
    return {row.centroid_id: _centroid_point(row) for row in await tx.rows(statement)}


async def page_points(
    tx: Transaction, kind: PointKind, model_version: str, library_id: str, after: UUID | None, limit: int
) -> Sequence[Point]:
    """Points of a library in order of id, from after ``after`` on."""
    if kind is PointKind.FACE:
        statement = _face_points(
            face_embeddings.c.model_version == model_version, face_embeddings.c.library_id == library_id
        ).order_by(face_embeddings.c.face_id)
        if after is not None:
            statement = statement.where(face_embeddings.c.face_id > after)
        return [_face_point(row) for row in await tx.rows(statement.limit(limit))]
    statement = (
        select(centroids)
        .where(centroids.c.model_version == model_version, centroids.c.library_id == library_id)
        .order_by(centroids.c.centroid_id)
    )
    if after is not None:
        statement = statement.where(centroids.c.centroid_id > after)
    return [_centroid_point(row) for row in await tx.rows(statement.limit(limit))]


async def page_ids(
    tx: Transaction, kind: PointKind, model_version: str, library_id: str, after: UUID | None, limit: int
) -> list[UUID]:
    """Ids of a library's points in order, from after ``after`` on."""
    ids, conditions = _ids_of(kind, model_version, library_id)
    statement = select(ids).where(*conditions).order_by(ids).limit(limit)
    if after is not None:
        statement = statement.where(ids > after)
    return [row[0] for row in await tx.rows(statement)]


async def sample_ids(
    tx: Transaction, kind: PointKind, model_version: str, library_id: str, limit: int, seed: int
) -> list[UUID]:
    """Ids of up to ``limit`` of a library's points, each as likely as the other; the same for the same ``seed`` (64 bits).

    Reads every id once, from the index: some 200 ms for a million.
    """
    ids, conditions = _ids_of(kind, model_version, library_id)
    shuffled = func.uuid_hash_extended(ids, seed)
    return [row[0] for row in await tx.rows(select(ids).where(*conditions).order_by(shuffled).limit(limit))]


async def read_libraries(
    tx: Transaction, kind: PointKind, model_version: str, point_ids: Collection[UUID]
) -> dict[UUID, str]:
    """The libraries of those of these points that exist, in one statement."""
    table = face_embeddings if kind is PointKind.FACE else centroids
    ids = face_embeddings.c.face_id if kind is PointKind.FACE else centroids.c.centroid_id
    rows = await tx.rows(
        select(ids.label("point_id"), table.c.library_id).where(
            table.c.model_version == model_version, ids == func.any(list(point_ids))
        )
    )
    return {row.point_id: row.library_id for row in rows}


async def count_points(tx: Transaction, kind: PointKind, model_version: str, library_id: str) -> int:
    """How many points a library should have in one collection."""
    table = face_embeddings if kind is PointKind.FACE else centroids
    found: int = await tx.scalar(
        select(func.count())
        .select_from(table)
        .where(table.c.library_id == library_id, table.c.model_version == model_version)
    )
    return found


def _ids_of(
    kind: PointKind, model_version: str, library_id: str
) -> tuple[ColumnElement[UUID], tuple[ColumnElement[bool], ColumnElement[bool]]]:
    """The ids of a library's points of one model, and the conditions that choose them."""
    table = face_embeddings if kind is PointKind.FACE else centroids
    ids = face_embeddings.c.face_id if kind is PointKind.FACE else centroids.c.centroid_id
    return ids, (table.c.library_id == library_id, table.c.model_version == model_version)


def _face_points(*conditions: ColumnElement[bool]) -> Select[Any]:
    return (
        select(
            face_embeddings.c.face_id,
            face_embeddings.c.embedding,
            faces.c.library_id,
            faces.c.asset_id,
            faces.c.state,
            faces.c.quality,
            assets.c.captured_at,
            assignments.c.person_id,
            cluster_members.c.cluster_id,
            prototypes.c.role,
        )
        .join(faces, faces.c.face_id == face_embeddings.c.face_id)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .outerjoin(cluster_members, cluster_members.c.face_id == faces.c.face_id)
        .outerjoin(prototypes, prototypes.c.face_id == faces.c.face_id)
        .where(*conditions)
    )


def _face_point(row: Row[Any]) -> Point:
    assigned = row.person_id is not None
    return Point(
        row.face_id,
        decode_embedding(row.embedding),
        {
            "library_id": row.library_id,
            "asset_id": row.asset_id,
            "person_id": str(row.person_id) if assigned else None,
            # A face that is assigned or put aside is in no cluster, whatever its old membership says.
            "cluster_id": None if assigned or row.state != "ACTIVE" else row.cluster_id,
            "assigned": assigned,
            "state": row.state,
            "quality": float(row.quality),
            "captured_at": row.captured_at.isoformat() if row.captured_at else None,
            "prototype": row.role is not None,
        },
    )


def _centroid_point(row: Row[Any]) -> Point:
    payload = {"library_id": row.library_id, "person_id": str(row.person_id), "kind": row.kind}
    return Point(row.centroid_id, decode_embedding(row.embedding), payload)
