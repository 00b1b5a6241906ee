"""Qdrant clients that misbehave when told to, and what stands in PostgreSQL and Qdrant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from shared.clock import Clock
from shared.db.outbox import PointKind, queue_faces
from shared.db.tables_detection import faces
from shared.db.tables_shared import vector_outbox
from shared.foundation import Foundation
from shared.vectors.reconcile import CollectionReport, Comparison, Depth, IndexPart
from shared.vectors.relay import Relay
from tests.integration.library import MODEL

Hook = Callable[[], Awaitable[None]]


class HookedQdrant:
    """The real client, with a hook before each write."""

    def __init__(self, client: Any, before_write: Hook) -> None:
        self._client = client
        self._before_write = before_write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def upsert(self, *args: Any, **kwargs: Any) -> Any:
        await self._before_write()
        return await self._client.upsert(*args, **kwargs)

    async def delete(self, *args: Any, **kwargs: Any) -> Any:
        await self._before_write()
        return await self._client.delete(*args, **kwargs)


def make_relay(base: Foundation, clock: Clock, client: Any = None, batch: int = 250) -> Relay:
    """A relay of the test's own; it has no loop, the test says when it relays."""
    settings = base.settings.relay.model_copy(update={"batch": batch})
    qdrant = base.qdrant if client is None else client
    return Relay(base.database, qdrant, base.collections, base.listener, clock, settings, base.metrics)


async def count_outbox(base: Foundation) -> int:
    """Rows in the outbox."""
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).select_from(vector_outbox))
    return found


async def read_payload(base: Foundation, point_id: UUID) -> dict[str, Any] | None:
    """The point's payload in Qdrant, or None if it is not there."""
    found = await base.qdrant.retrieve(base.collections.faces(MODEL), [str(point_id)], with_payload=True)
    return dict(found[0].payload or {}) if found else None


async def compare(
    base: Foundation,
    kind: PointKind = PointKind.FACE,
    max_rows: int | None = None,
    library_id: str = "default",
    seed: int = 0,
) -> CollectionReport:
    """Compare one collection with the truth."""
    async with base.database.snapshot() as tx:
        part = IndexPart(kind, library_id, MODEL)
        return await Comparison(base.qdrant, base.collections).compare(tx, part, Depth(max_rows, seed))


async def change_quality(base: Foundation, face_id: UUID, quality: float) -> None:
    """What a service does: the row and its place in the outbox, in one transaction."""
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == face_id).values(quality=quality))
        await queue_faces(tx, base.clock, "default", [face_id])
