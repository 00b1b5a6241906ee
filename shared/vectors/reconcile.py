"""Compares Qdrant with the truth, page by page: counts always, rows and payloads on request.

One library's points in one collection are an :class:`IndexPart`; nothing here names a point of another library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

import grpc
import numpy as np
from qdrant_client import AsyncQdrantClient, models

from shared.db.engine import Transaction
from shared.db.outbox import PointKind
from shared.errors import DeadlineTooShort
from shared.vectors.collections import Collections
from shared.vectors.truth import (
    Point,
    count_points,
    page_points,
    read_libraries,
    read_points,
    sample_ids,
)

PAGE = 500
MAX_NAMED = 100
# Qdrant keeps float32 of what PostgreSQL keeps as float16: equal up to Qdrant's own normalisation.
MIN_SAME_VECTOR = 0.99999
# A comparison that has no more time than this stops, while its answer can still be sent.
LEAST_LEFT_S = 0.5


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


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One library's points in one collection."""

    kind: PointKind
    library_id: str
    model_version: str


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


@dataclass(frozen=True, slots=True)
class Depth:
    """How much to compare: ``rows`` field by field, picked at random by ``seed``; None = every row and every point.

    ``time_left`` tells the seconds there are, None as many as it takes.
    """

    rows: int | None = 0
    seed: int = 0
    time_left: Callable[[], float | None] = lambda: None


class Comparison:
    """Compares collections of one Qdrant with one database. Reads pages of 500, so its memory does not grow."""

    def __init__(self, client: AsyncQdrantClient, collections: Collections) -> None:
        self._client = client
        self._collections = collections

    async def compare(self, tx: Transaction, part: IndexPart, depth: Depth) -> CollectionReport:
        """Compare one part. Raises :class:`DeadlineTooShort` when the time is nearly up, with how far it got."""
        name = self._collections.named(part.kind, part.model_version)
        expected = await count_points(tx, part.kind, part.model_version, part.library_id)
        try:
            found = (await self._client.count(name, count_filter=_of_library(part), exact=True)).count
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            # Qdrant was lost, collection and all: every row is missing.
            return CollectionReport(name, part.model_version, expected, 0, missing=expected)
        report = CollectionReport(name, part.model_version, expected, found)
        if depth.rows is None:
            await self._compare_all(tx, part, report, depth)
        elif depth.rows:
            await self._compare_sample(tx, part, report, depth, depth.rows)
        return report

    async def find_drifts(self, part: IndexPart, rows: Sequence[Point]) -> list[Drift]:
        """Hold rows of the truth against their points: which are missing, which stale; in one call."""
        if not rows:
            return []
        name = self._collections.named(part.kind, part.model_version)
        found = await self._client.retrieve(
            name, [str(row.point_id) for row in rows], with_payload=True, with_vectors=True
        )
        held = {UUID(str(record.id)): record for record in found}
        drifts = []
        for row in rows:
            record = held.get(row.point_id)
            if record is None:
                drifts.append(Drift(row.point_id, DriftKind.MISSING))
            elif differing := _differing_fields(row, record.payload or {}, record.vector):
                drifts.append(Drift(row.point_id, DriftKind.STALE, differing))
        return drifts

    async def page_held(self, part: IndexPart, start: UUID | None) -> tuple[list[UUID], UUID | None]:
        """Ids of the points Qdrant holds from ``start`` on, in order, and where the next page begins."""
        records, following = await self._client.scroll(
            self._collections.named(part.kind, part.model_version),
            scroll_filter=_of_library(part),
            limit=PAGE,
            offset=None if start is None else str(start),
            with_payload=False,
        )
        return [UUID(str(record.id)) for record in records], None if following is None else UUID(str(following))

    async def read_newest_version(self, part: IndexPart) -> int:
        """The highest version any point of the collection was written with; 0 if it is empty."""
        records, _ = await self._client.scroll(
            self._collections.named(part.kind, part.model_version),
            limit=1,
            order_by=models.OrderBy(key="row_version", direction=models.Direction.DESC),
            with_payload=["row_version"],
        )
        return int((records[0].payload or {}).get("row_version", 0)) if records else 0

    async def _compare_all(self, tx: Transaction, part: IndexPart, report: CollectionReport, depth: Depth) -> None:
        after: UUID | None = None
        while rows := await page_points(tx, part.kind, part.model_version, part.library_id, after, PAGE):
            _check_time(depth, report)
            _add_all(report, await self.find_drifts(part, rows))
            report.compared += len(rows)
            after = rows[-1].point_id
        start: UUID | None = None
        while True:
            _check_time(depth, report)
            ids, start = await self.page_held(part, start)
            _add_all(report, find_strangers(part, ids, await read_libraries(tx, part.kind, part.model_version, ids)))
            if start is None:
                return

    async def _compare_sample(
        self, tx: Transaction, part: IndexPart, report: CollectionReport, depth: Depth, rows: int
    ) -> None:
        ids = await sample_ids(tx, part.kind, part.model_version, part.library_id, rows, depth.seed)
        for begin in range(0, len(ids), PAGE):
            _check_time(depth, report)
            points = await read_points(tx, part.kind, part.model_version, ids[begin : begin + PAGE])
            _add_all(report, await self.find_drifts(part, list(points.values())))
            report.compared += len(points)


def find_strangers(part: IndexPart, ids: Sequence[UUID], libraries: Mapping[UUID, str]) -> list[Drift]:
    """Which of the points that say they are of ``part`` have no row; one with a row in another library is stale.

    ``libraries`` are those of the rows there are.
    """
    return [
        Drift(point_id, DriftKind.STALE, ("library_id",))
        if point_id in libraries
        else Drift(point_id, DriftKind.STRANGER)
        for point_id in ids
        if libraries.get(point_id) != part.library_id
    ]


def _of_library(part: IndexPart) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="library_id", match=models.MatchValue(value=part.library_id))])


def _add_all(report: CollectionReport, drifts: Sequence[Drift]) -> None:
    for drift in drifts:
        report.add(drift)


def _check_time(depth: Depth, report: CollectionReport) -> None:
    left = depth.time_left()
    if left is not None and left < LEAST_LEFT_S:
        raise DeadlineTooShort(
            f"{report.compared} of {report.postgres_count} rows of '{report.collection}' were compared in the time there "
            "was: compare a sample, allow more time, or call Reconcile, which compares as a job",
            metadata={"begun": "true"},
        )


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
