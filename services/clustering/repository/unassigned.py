"""Reads the faces nobody has named, with their embeddings, as one stream into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, and_, func, select

from services.clustering.domain.model import ActiveModel
from shared.db.engine import Transaction
from shared.db.query import Query
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_persons import assignments
from shared.faces.embeddings import decode_embeddings

STREAM_ROWS = 4096


@dataclass(frozen=True, slots=True)
class FaceSelection:
    """Which unassigned faces to group: of photos taken from ``captured_from`` on and before ``captured_before``."""

    captured_from: datetime | None = None
    captured_before: datetime | None = None
    min_quality: float = 0.0


@dataclass(frozen=True, slots=True)
class FaceTable:
    """Faces by row: ``vectors`` (N, D) float16 or float32 unit rows, of the matcher's space if there is one, ``assets`` (N,)
    equal for faces of one photo, ``quality`` (N,), ``anchors`` (N,) equal for faces that a human put into one cluster, -1 for
    the others, ``dismissed`` (N,) whether the face was put away.
    """

    face_ids: Sequence[UUID]
    vectors: npt.NDArray[np.floating]
    assets: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float32]
    anchors: npt.NDArray[np.int32]
    dismissed: npt.NDArray[np.bool_]

    @classmethod
    def empty(cls, dimension: int) -> FaceTable:
        """No faces."""
        return cls(
            [],
            np.empty((0, dimension), dtype=np.float16),
            np.empty(0, dtype=np.int64),
            np.empty(0, dtype=np.float32),
            np.empty(0, dtype=np.int32),
            np.empty(0, dtype=np.bool_),
        )


@dataclass(frozen=True, slots=True)
class FaceCounts:
    """How many faces a selection has an embedding of, and how many it has none of."""

    embedded: int
    missing: int


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


async def count_unassigned(tx: Transaction, library_id: str, model: ActiveModel, where: FaceSelection) -> FaceCounts:
    """How many faces :func:`read_unassigned` will read in the same snapshot, and how many it will not for want of a vector."""
    row = await tx.one_or_none(
        _selected(library_id, model, where, isouter=True).with_only_columns(
            func.count(face_embeddings.c.face_id).label("embedded"),
            func.count().filter(face_embeddings.c.face_id.is_(None)).label("missing"),
        )
    )
    assert row is not None
    return FaceCounts(row.embedded, row.missing)


async def read_unassigned(
    tx: Transaction, library_id: str, model: ActiveModel, where: FaceSelection, vectors: npt.NDArray[np.floating]
) -> FaceTable:
    """The selected faces in order of id, by one statement, with their embeddings in ``vectors`` (N, D): as many rows as
    :func:`count_unassigned` counted in the same snapshot.

    They are projected as they come where the model has a learnt space. Memory: the arrays, and one slice of rows. Raises
    :class:`InvalidEmbedding` for a row of another dimension.
    """
    projection = model.learnt.projection if model.learnt else None
    count = len(vectors)
    quality = np.empty(count, dtype=np.float32)
    codes = np.empty(count, dtype=np.int64)
    anchors = np.full(count, -1, dtype=np.int32)
    dismissed = np.empty(count, dtype=np.bool_)
    face_ids: list[UUID] = []
    names: dict[str, int] = {}
    pins: dict[str, int] = {}
    statement = Query(_selected(library_id, model, where).order_by(faces.c.face_id))
    async for rows in tx.stream(statement, STREAM_ROWS):
        place = slice(len(face_ids), len(face_ids) + len(rows))
        ids, assets_of, qualities, embeddings, cluster_ids, pinned, states = zip(*rows, strict=True)
        decoded = decode_embeddings(embeddings, model.dimension)
        vectors[place] = projection.apply(decoded) if projection else decoded
        quality[place] = qualities
        codes[place] = [names.setdefault(asset_id, len(names)) for asset_id in assets_of]
        anchors[place] = [
            pins.setdefault(cluster_id, len(pins)) if pin else -1
            for cluster_id, pin in zip(cluster_ids, pinned, strict=True)
        ]
        dismissed[place] = [state == "DISMISSED" for state in states]
        face_ids.extend(ids)
    return FaceTable(face_ids, vectors, codes, quality, anchors, dismissed)


def _selected(library_id: str, model: ActiveModel, where: FaceSelection, *, isouter: bool = False) -> Select[Any]:
    statement = (
        select(
            faces.c.face_id,
            faces.c.asset_id,
            faces.c.quality,
            face_embeddings.c.embedding,
            cluster_members.c.cluster_id,
            cluster_members.c.pinned,
            clusters.c.state,
        )
        .select_from(faces)
        .join(
            face_embeddings,
            and_(
                face_embeddings.c.face_id == faces.c.face_id,
                face_embeddings.c.library_id == library_id,
                face_embeddings.c.model_version == model.model_version,
            ),
            isouter=isouter,
        )
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .outerjoin(cluster_members, cluster_members.c.face_id == faces.c.face_id)
        .outerjoin(clusters, clusters.c.cluster_id == cluster_members.c.cluster_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.state == "ACTIVE",
            assignments.c.face_id.is_(None),
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
