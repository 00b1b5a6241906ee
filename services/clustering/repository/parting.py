"""SQL for cutting one cluster in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from sqlalchemy import and_, func, select, update

from services.clustering.domain.model import ActiveModel
from shared.db.engine import Transaction
from shared.db.tables_clustering import cluster_members
from shared.db.tables_detection import face_embeddings, faces
from shared.db.tables_persons import assignments
from shared.faces.embeddings import Vectors, decode_embeddings

STREAM_ROWS = 4096


async def stream_vectors(
    tx: Transaction, library_id: str, cluster_id: str, model: ActiveModel
) -> AsyncIterator[tuple[list[UUID], Vectors]]:
    """Live members with an embedding of the model, in order of id, some thousands at a time; one statement.

    Vectors are (n, D) unit rows, of the matcher's space if the model has one.
    """
    projection = model.learnt.projection if model.learnt else None
    statement = (
        select(cluster_members.c.face_id, face_embeddings.c.embedding)
        .join(faces, faces.c.face_id == cluster_members.c.face_id)
        .join(
            face_embeddings,
            and_(
                face_embeddings.c.face_id == cluster_members.c.face_id,
                face_embeddings.c.model_version == model.model_version,
            ),
        )
        .outerjoin(assignments, assignments.c.face_id == cluster_members.c.face_id)
        .where(
            cluster_members.c.library_id == library_id,
            cluster_members.c.cluster_id == cluster_id,
            faces.c.state == "ACTIVE",
            assignments.c.face_id.is_(None),
        )
        .order_by(cluster_members.c.face_id)
    )
    async with tx.connection.stream(statement.execution_options(yield_per=STREAM_ROWS)) as stream:
        async for rows in stream.partitions():
            decoded = decode_embeddings([row.embedding for row in rows], model.dimension)
            yield [row.face_id for row in rows], projection.apply(decoded) if projection else decoded


async def pin_members(tx: Transaction, face_ids: Sequence[UUID]) -> None:
    """Remember that a human put these faces into the clusters they are in."""
    await tx.execute(
        update(cluster_members).where(cluster_members.c.face_id == func.any(list(face_ids))).values(pinned=True)
    )
