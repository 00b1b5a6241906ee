"""Drawn faces as a library: rows by COPY as detection leaves them, points as the relay writes them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import UUID

import numpy as np
from sqlalchemy import Table, insert, select, text

from bench.areas.suggestions.faces import DrawnFaces
from shared.db.engine import Transaction
from shared.db.outbox import PointKind
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_shared import vector_versions
from shared.faces.embeddings import STORED
from shared.foundation import Foundation
from shared.vectors.relay import write_points
from shared.vectors.truth import page_points

MODEL: Final = "bench_512"
DIMENSION: Final = 512
MINUTES_BETWEEN_PHOTOS: Final = 10
PAGE_POINTS: Final = 500
_FIRST_PHOTO: Final = datetime(2005, 5, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class SeededLibrary:
    """A library whose face number n, a photo of its own, is ``face_ids[n]`` and who ``drawn.truth[n]`` says."""

    library_id: str
    drawn: DrawnFaces
    face_ids: Sequence[UUID]
    numbers: Mapping[UUID, int]


async def seed_library(base: Foundation, library_id: str, drawn: DrawnFaces) -> SeededLibrary:
    """Store the faces, and bring them to Qdrant. Nobody has any of them.

    The model carries no calibration of its own, so that ArcFace's holds, as of any pack that was not measured.
    """
    await base.collections.create_missing(MODEL, DIMENSION)
    # By time, as ids are: what is stored together is read together.
    face_ids = sorted((base.ids.new_uuid() for _ in range(len(drawn))), key=lambda each: each.int)
    async with base.database.transaction() as tx:
        model = {"model_version": MODEL, "pack": "bench", "dimension": DIMENSION, "state": "ACTIVE"}
        await tx.execute(insert(models), {"library_id": library_id, **model, "created_at": base.clock.now()})
        await _Writer(tx, library_id, base.clock.now()).write(drawn, face_ids)
    # What the planner knows of tables that were filled a moment ago would be chance.
    async with base.database.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("VACUUM ANALYZE"))
    await _index_faces(base, library_id)
    return SeededLibrary(library_id, drawn, face_ids, {face_id: row for row, face_id in enumerate(face_ids)})


async def _index_faces(base: Foundation, library_id: str) -> None:
    """Every face's point as the relay would write it, page by page, the next one read while one is written."""
    collection = base.collections.faces(MODEL)
    async with base.database.transaction() as tx:
        version = await tx.scalar(select(vector_versions.next_value()))
    after: UUID | None = None
    async with asyncio.TaskGroup() as writes:
        last: asyncio.Task[None] | None = None
        while True:
            async with base.database.snapshot() as tx:
                page = await page_points(tx, PointKind.FACE, MODEL, library_id, after, PAGE_POINTS)
            if last is not None:
                await last
            if not page:
                return
            after = page[-1].point_id
            last = writes.create_task(write_points(base.qdrant, collection, version, page))


class _Writer:
    """Rows of one library, written at one moment."""

    def __init__(self, tx: Transaction, library_id: str, now: datetime) -> None:
        self._tx = tx
        self._library_id = library_id
        self._now = now

    async def write(self, drawn: DrawnFaces, face_ids: Sequence[UUID]) -> None:
        """Photos, faces and embeddings."""
        # A photo of a shot is taken so many seconds after the first one.
        order = np.argsort(drawn.shots, kind="stable")
        firsts = np.searchsorted(drawn.shots[order], drawn.shots[order])
        seconds = np.empty(len(drawn), dtype=np.int64)
        seconds[order] = np.arange(len(drawn)) - firsts
        hashes = np.random.default_rng(0).integers(-(2**63), 2**63, len(drawn)).tolist()
        shots, quality = drawn.shots.tolist(), drawn.quality.tolist()
        await self._copy(
            assets, (self._photo(row, shots[row], int(seconds[row]), hashes[shots[row]]) for row in range(len(drawn)))
        )
        await self._copy(faces, (self._face(row, face_id, quality[row]) for row, face_id in enumerate(face_ids)))
        await self._copy(
            face_embeddings,
            (
                {
                    "face_id": face_id,
                    "model_version": MODEL,
                    "embedding": drawn.vectors[row].astype(STORED).tobytes(),
                    "norm": 20.0,
                }
                for row, face_id in enumerate(face_ids)
            ),
        )

    def _photo(self, row: int, shot: int, seconds: int, difference_hash: int) -> dict[str, Any]:
        return {
            "asset_id": f"photo-{row:07d}",
            "uri": f"file:///photos/photo-{row:07d}.jpg",
            "captured_at": _FIRST_PHOTO + timedelta(minutes=MINUTES_BETWEEN_PHOTOS * shot, seconds=seconds),
            "captured_precision": "SECOND",
            "captured_source": "EXIF",
            "width": 4000,
            "height": 3000,
            "difference_hash": difference_hash,
            "detection": "FACES",
            "face_count": 1,
            "created_at": self._now,
            "updated_at": self._now,
        }

    def _face(self, row: int, face_id: UUID, quality: float) -> dict[str, Any]:
        return {
            "face_id": face_id,
            "asset_id": f"photo-{row:07d}",
            "box_x": 900.0,
            "box_y": 700.0,
            "box_width": 380.0,
            "box_height": 460.0,
            "landmarks": [0.0] * 10,
            "confidence": 0.9,
            "quality": quality,
            "quality_size": quality,
            "quality_sharpness": quality,
            "quality_pose": quality,
            "yaw": 4.0,
            "pitch": -2.0,
            "roll": 1.0,
            "origin": "DETECTED",
            "created_at": self._now,
            "updated_at": self._now,
        }

    async def _copy(self, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows that all have the same columns, besides that of the library, which every table has."""
        ahead = iter(rows)
        first = next(ahead)
        await self._tx.copy(
            table.name,
            ("library_id", *first),
            ((self._library_id, *row.values()) for row in chain([first], ahead)),
        )
