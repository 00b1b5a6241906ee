"""Reads the faces nobody has named, with their embeddings, as one stream into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, and_, func, or_, select

from services.clustering.domain.model import ActiveModel
from shared.db.engine import Transaction
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_persons import assignments
from shared.faces.embeddings import Vectors, decode_embeddings

STREAM_ROWS = 4096


@dataclass(frozen=True, slots=True)
class FaceSelection:
    """Which unassigned faces to group: of photos taken from ``captured_from`` on and before ``captured_before``."""

    captured_from: datetime | None = None
    captured_before: datetime | None = None
    min_quality: float = 0.0


@dataclass(frozen=True, slots=True)
class FaceTable:
    """Faces by row: ``vectors`` (N, D) float32 unit rows, of the matcher's space if there is one, ``assets`` (N,) equal for
    faces of one photo, ``quality`` (N,).
    """

    face_ids: Sequence[UUID]
    vectors: Vectors
    assets: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float32]


async def find_active_model(tx: Transaction, library_id: str) -> ActiveModel | None:
    """The model a library works with; None before its first detection."""
    row = await tx.one_or_none(
        select(models.c.model_version, models.c.dimension, models.c.thresholds).where(
            models.c.library_id == library_id, models.c.state == "ACTIVE"
        )
    )
    if row is None:
        return None
    return ActiveModel(row.model_version, row.dimension, {name: float(value) for name, value in row.thresholds.items()})


async def count_unassigned(tx: Transaction, library_id: str, model: ActiveModel, where: FaceSelection) -> int:
    """How many faces :func:`read_unassigned` will read in the same snapshot."""
    found: int = await tx.scalar(_selected(library_id, model, where).with_only_columns(func.count()))
    return found


async def read_unassigned(
    tx: Transaction, library_id: str, model: ActiveModel, where: FaceSelection, count: int
) -> FaceTable:
    """The selected faces in order of id, by one statement. ``count`` rows must come: take it in the same snapshot.

    They are projected as they come where the model has a learnt space. Memory: the arrays, and one slice of rows. Raises
    :class:`InvalidEmbedding` for a row of another dimension.
    """
    projection = model.learnt.projection if model.learnt else None
    vectors = np.empty((count, projection.dimension if projection else model.dimension), dtype=np.float32)
    quality = np.empty(count, dtype=np.float32)
    codes = np.empty(count, dtype=np.int64)
    face_ids: list[UUID] = []
    names: dict[str, int] = {}
    statement = _selected(library_id, model, where).order_by(faces.c.face_id)
    async with tx.connection.stream(statement.execution_options(yield_per=STREAM_ROWS)) as stream:
        async for rows in stream.partitions():
            place = slice(len(face_ids), len(face_ids) + len(rows))
            decoded = decode_embeddings([row.embedding for row in rows], model.dimension)
            vectors[place] = projection.apply(decoded) if projection else decoded
            quality[place] = [row.quality for row in rows]
            codes[place] = [names.setdefault(row.asset_id, len(names)) for row in rows]
            face_ids.extend(row.face_id for row in rows)
    return FaceTable(face_ids, vectors, codes, quality)


def _selected(library_id: str, model: ActiveModel, where: FaceSelection) -> Select[Any]:
    statement = (
        select(faces.c.face_id, faces.c.asset_id, faces.c.quality, face_embeddings.c.embedding)
        .select_from(faces)
        .join(
            face_embeddings,
            and_(
                face_embeddings.c.face_id == faces.c.face_id,
                face_embeddings.c.library_id == library_id,
                face_embeddings.c.model_version == model.model_version,
            ),
        )
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .outerjoin(cluster_members, cluster_members.c.face_id == faces.c.face_id)
        .outerjoin(clusters, clusters.c.cluster_id == cluster_members.c.cluster_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.state == "ACTIVE",
            assignments.c.face_id.is_(None),
            # Faces that were put away come back only if asked for.
            or_(clusters.c.state.is_(None), clusters.c.state == "ACTIVE"),
        )
    )
    if where.min_quality > 0:
        statement = statement.where(faces.c.quality >= where.min_quality)
    if where.captured_from is not None or where.captured_before is not None:
        statement = statement.join(
            assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id)
        )
        if where.captured_from is not None:
            statement = statement.where(assets.c.captured_at >= where.captured_from)
        if where.captured_before is not None:
            statement = statement.where(assets.c.captured_at < where.captured_before)
    return statement
