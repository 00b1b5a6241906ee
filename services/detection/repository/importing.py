"""SQL that stores the faces of another system. Each function is one statement, whatever the number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Integer, LargeBinary, Text, Uuid, func, literal, literal_column, select, update
from sqlalchemy.dialects.postgresql import REAL, insert

from services.detection.domain.model import FaceOrigin
from services.detection.repository.rows import Types, table_of
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.faces.quality import PlacedQuality

_FACE_COLUMNS = (
    "face_id",
    "asset_id",
    "landmarks",
    "box_x",
    "box_y",
    "box_width",
    "box_height",
    "confidence",
    "quality",
    "quality_size",
    "quality_pose",
    "yaw",
    "pitch",
    "roll",
    "quality_sharpness",
    "library_id",
    "origin",
    "created_at",
    "updated_at",
)
_EMBEDDING_COLUMNS = ("face_id", "embedding", "norm", "library_id", "model_version", "imported")


@dataclass(frozen=True, slots=True)
class StoredPlace:
    """Where a stored face is: x, y, width, height."""

    face_id: UUID
    asset_id: str
    box: tuple[float, float, float, float]


async def lock_sizes(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Lock those photos that are there, in order of id, and read their width and height; 0 x 0 before the first look."""
    rows = await tx.rows(
        select(assets.c.asset_id, assets.c.width, assets.c.height)
        .where(assets.c.library_id == library_id, assets.c.asset_id == func.any(list(asset_ids)))
        .order_by(assets.c.asset_id)
        .with_for_update(key_share=True)
    )
    return {row.asset_id: (row.width, row.height) for row in rows}


async def lock_places(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> list[StoredPlace]:
    """Lock every face of locked photos, in order of id, and read where it is."""
    rows = await tx.rows(
        select(faces.c.face_id, faces.c.asset_id, faces.c.box_x, faces.c.box_y, faces.c.box_width, faces.c.box_height)
        .where(faces.c.library_id == library_id, faces.c.asset_id == func.any(list(asset_ids)))
        .order_by(faces.c.face_id)
        .with_for_update(key_share=True)
    )
    return [
        StoredPlace(row.face_id, row.asset_id, (row.box_x, row.box_y, row.box_width, row.box_height)) for row in rows
    ]


async def copy_faces(
    tx: Transaction,
    clock: Clock,
    library_id: str,
    face_ids: Sequence[UUID],
    asset_ids: Sequence[str],
    boxes: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    confidences: NDArray[np.float32],
    quality: PlacedQuality,
) -> None:
    """Add imported faces. Their sharpness is not known and stored as 0."""
    parts = np.column_stack([boxes, confidences, quality.overall, quality.size, quality.pose, quality.angles])
    now = clock.now()
    same = (0.0, library_id, FaceOrigin.IMPORTED.value, now, now)
    points = landmarks.reshape(-1, 10).tolist()
    records = [
        (face_id, asset_id, marks, *measured, *same)
        for face_id, asset_id, marks, measured in zip(face_ids, asset_ids, points, parts.tolist(), strict=True)
    ]
    await tx.copy(faces.name, _FACE_COLUMNS, records)


async def add_embeddings(
    tx: Transaction,
    library_id: str,
    model_version: str,
    face_ids: Sequence[UUID],
    embeddings: Sequence[bytes],
    norms: Sequence[float],
) -> None:
    """Add the imported vectors of new faces."""
    same = (repeat(library_id), repeat(model_version), repeat(True))
    records = zip(face_ids, embeddings, norms, *same, strict=False)
    await tx.copy(face_embeddings.name, _EMBEDDING_COLUMNS, records)


async def replace_embeddings(
    tx: Transaction,
    library_id: str,
    model_version: str,
    face_ids: Sequence[UUID],
    embeddings: Sequence[bytes],
    norms: Sequence[float],
) -> list[UUID]:
    """Give locked faces imported vectors where they have none, or another imported one; answers which changed."""
    if not face_ids:
        return []
    types: Types = {"face_id": Uuid(), "embedding": LargeBinary(), "norm": REAL()}
    given = table_of("given", types, list(zip(face_ids, embeddings, norms, strict=True)))
    statement = insert(face_embeddings).from_select(
        list(_EMBEDDING_COLUMNS),
        select(
            given.c.face_id,
            given.c.embedding,
            given.c.norm,
            literal(library_id, Text()),
            literal(model_version, Text()),
            literal_column("true"),
        ).order_by(given.c.face_id),
    )
    replacing = statement.excluded
    rows = await tx.rows(
        statement.on_conflict_do_update(
            index_elements=["face_id", "model_version"],
            set_={"embedding": replacing.embedding, "norm": replacing.norm},
            where=face_embeddings.c.imported & (face_embeddings.c.embedding != replacing.embedding),
        ).returning(face_embeddings.c.face_id)
    )
    return [row.face_id for row in rows]


async def add_face_counts(tx: Transaction, clock: Clock, library_id: str, counts: Mapping[str, int]) -> None:
    """Count faces that came to locked photos, or, below 0, went from them."""
    given = table_of("given", {"asset_id": Text(), "faces": Integer()}, list(counts.items()))
    await tx.execute(
        update(assets)
        .where(assets.c.library_id == library_id, assets.c.asset_id == given.c.asset_id)
        .values(face_count=assets.c.face_count + given.c.faces, updated_at=clock.now())
    )
