"""Rows to test with: photos, faces and embeddings as detection would have stored them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from shared.db.outbox import queue_faces
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.faces.embeddings import encode_embedding
from shared.foundation import Foundation

MODEL = "test_model"


@dataclass(frozen=True, slots=True)
class SeededFaces:
    """Ids of the faces in order, and the asset of each."""

    face_ids: list[UUID]
    asset_ids: list[str]


def random_vectors(count: int, dimension: int = 32, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors without any likeness: (count, dimension)."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


async def seed_faces(
    base: Foundation,
    vectors: NDArray[np.float32],
    *,
    library_id: str = "default",
    faces_per_photo: int = 1,
    qualities: Sequence[float] | None = None,
    with_collections: bool = True,
) -> SeededFaces:
    """One row per vector, ``faces_per_photo`` to a photo, taken a day apart; queued for Qdrant."""
    now = datetime.now(UTC)
    first = datetime(2020, 1, 1, tzinfo=UTC)
    if with_collections:
        await base.collections.create_missing(MODEL, vectors.shape[1])
    photos = -(-len(vectors) // faces_per_photo)
    prefix = base.ids.new_uuid().hex[-6:]
    names = [f"{prefix}-{index:05d}" for index in range(photos)]
    found = SeededFaces(
        [base.ids.new_uuid() for _ in vectors], [names[index // faces_per_photo] for index in range(len(vectors))]
    )
    async with base.database.transaction() as tx:
        known = await tx.scalar(models.select().where(models.c.library_id == library_id))
        if known is None:
            await tx.execute(
                insert(models),
                {
                    "library_id": library_id,
                    "model_version": MODEL,
                    "pack": "test",
                    "dimension": vectors.shape[1],
                    "state": "ACTIVE",
                    "created_at": now,
                },
            )
        await tx.execute(
            insert(assets),
            [
                {
                    "library_id": library_id,
                    "asset_id": name,
                    "uri": f"file:///photos/{name}.jpg",
                    "captured_at": first + timedelta(days=index),
                    "captured_precision": "SECOND",
                    "captured_source": "CALLER",
                    "width": 1000,
                    "height": 800,
                    "detection": "FACES",
                    "face_count": faces_per_photo,
                    "created_at": now,
                    "updated_at": now,
                }
                for index, name in enumerate(names)
            ],
        )
        await tx.execute(
            insert(faces),
            [
                {
                    "face_id": face_id,
                    "library_id": library_id,
                    "asset_id": found.asset_ids[index],
                    "box_x": 100.0 * (index % faces_per_photo),
                    "box_y": 50.0,
                    "box_width": 80.0,
                    "box_height": 100.0,
                    "landmarks": [0.0] * 10,
                    "confidence": 0.9,
                    "quality": 0.8 if qualities is None else qualities[index],
                    "quality_size": 0.8,
                    "quality_sharpness": 0.8,
                    "quality_pose": 0.8,
                    "yaw": 0.0,
                    "pitch": 0.0,
                    "roll": 0.0,
                    "origin": "DETECTED",
                    "created_at": now,
                    "updated_at": now,
                }
                for index, face_id in enumerate(found.face_ids)
            ],
        )
        await tx.execute(
            insert(face_embeddings),
            [
                {
                    "face_id": face_id,
                    "model_version": MODEL,
                    "library_id": library_id,
                    "embedding": encode_embedding(vectors[index]),
                    "norm": 20.0,
                }
                for index, face_id in enumerate(found.face_ids)
            ],
        )
        await queue_faces(tx, base.clock, library_id, found.face_ids)
    return found
