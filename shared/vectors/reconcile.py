"""Compares Qdrant with the truth: counts always, rows and payloads on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

import grpc
import numpy as np
from qdrant_client import AsyncQdrantClient, models

from shared.db.engine import Transaction
from shared.db.outbox import PointKind
from shared.vectors.collections import Collections
from shared.vectors.truth import Point, count_points, page_points, read_points

PAGE = 500
MAX_NAMED = 100
# Qdrant keeps float32 of what PostgreSQL keeps as float16: equal up to Qdrant's own normalisation.
MIN_SAME_VECTOR = 0.99999


class DriftKind(StrEnum):
    """How a point differs from its row."""

    MISSING = "MISSING"
    STRANGER = "STRANGER"
    STALE = "STALE"


@dataclass(frozen=True, slots=True)
class Drift:
    """One point that differs; ``fields`` of a stale one."""

    point_id: UUID
    kind: DriftKind
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class CollectionReport:
    """One collection, compared for one library."""

    collection: str
    model_version: str
    postgres_count: int
    qdrant_count: int
    compared: int = 0
    missing: int = 0
    strangers: int = 0
    stale: int = 0
    drifts: list[Drift] = field(default_factory=list)

    def add(self, drift: Drift) -> None:
        """Count a drift and name it, up to the limit."""
        if drift.kind is DriftKind.MISSING:
            self.missing += 1
        elif drift.kind is DriftKind.STRANGER:
            self.strangers += 1
        else:
            self.stale += 1
        if len(self.drifts) < MAX_NAMED:
            self.drifts.append(drift)

    @property
    def consistent(self) -> bool:
        """Whether nothing differed."""
        return self.postgres_count == self.qdrant_count and not (self.missing or self.strangers or self.stale)


class Comparison:
    """Compares collections of one Qdrant with one database."""

    def __init__(self, client: AsyncQdrantClient, collections: Collections) -> None:
        self._client = client
        self._collections = collections

    async def compare(
        self, tx: Transaction, kind: PointKind, library_id: str, model_version: str, max_rows: int | None
    ) -> CollectionReport:
        """Compare one collection. ``max_rows``: rows to compare field by field; None = all, 0 = counts only.

        Reads in pages of 500 from both stores, so its memory does not grow with the library.
        """
        names = {PointKind.FACE: self._collections.faces, PointKind.CENTROID: self._collections.centroids}
        name = names[kind](model_version)
        in_library = models.Filter(
            must=[models.FieldCondition(key="library_id", match=models.MatchValue(value=library_id))]
        )
        expected = await count_points(tx, kind, model_version, library_id)
        try:
            found = (await self._client.count(name, count_filter=in_library, exact=True)).count
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            # Qdrant was lost, collection and all: every row is missing.
            return CollectionReport(name, model_version, expected, 0, missing=expected)
        report = CollectionReport(name, model_version, expected, found)
        if max_rows != 0:
            await self._compare_rows(tx, kind, report, library_id, max_rows)
        if max_rows is None:
            await self._find_strangers(tx, kind, report, in_library)
        return report

    async def _compare_rows(
        self, tx: Transaction, kind: PointKind, report: CollectionReport, library_id: str, max_rows: int | None
    ) -> None:
        after: UUID | None = None
        while max_rows is None or report.compared < max_rows:
            limit = PAGE if max_rows is None else min(PAGE, max_rows - report.compared)
            rows = await page_points(tx, kind, report.model_version, library_id, after, limit)
            if not rows:
                return
            found = await self._client.retrieve(
                report.collection, [str(row.point_id) for row in rows], with_payload=True, with_vectors=True
            )
            held = {UUID(str(record.id)): record for record in found}
            for row in rows:
                record = held.get(row.point_id)
                if record is None:
                    report.add(Drift(row.point_id, DriftKind.MISSING))
                elif differing := _differing_fields(row, record.payload or {}, record.vector):
                    report.add(Drift(row.point_id, DriftKind.STALE, differing))
            report.compared += len(rows)
            after = rows[-1].point_id

    async def _find_strangers(
        self, tx: Transaction, kind: PointKind, report: CollectionReport, in_library: models.Filter
    ) -> None:
        offset: Any = None
        while True:
            records, offset = await self._client.scroll(
                report.collection, scroll_filter=in_library, limit=PAGE, offset=offset, with_payload=False
            )
            ids = [UUID(str(record.id)) for record in records]
            known = await read_points(tx, kind, report.model_version, ids)
            for point_id in ids:
                if point_id not in known:
                    report.add(Drift(point_id, DriftKind.STRANGER))
            if offset is None:
                return


def _differing_fields(expected: Point, payload: dict[str, Any], vector: Any) -> tuple[str, ...]:
    differing = [name for name, value in expected.payload.items() if not _same(payload.get(name), value)]
    held = np.asarray(vector, dtype=np.float32)
    if held.shape != expected.vector.shape or float(held @ expected.vector) < MIN_SAME_VECTOR:
        differing.append("vector")
    return tuple(differing)


def _same(held: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(held, int | float):
        return abs(held - expected) < 1e-6
    return bool(held == expected)
