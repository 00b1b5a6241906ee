"""The relay: brings Qdrant up to the truth, point by point that the outbox names.

It runs in every worker; any number may run at once. A claim is made and settled in short transactions, with the write to
Qdrant between them and outside of both, so that no writer of the truth ever waits for Qdrant.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import grpc
import structlog
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException

from shared.clock import Clock
from shared.config import RelaySettings
from shared.db.engine import DATABASE_FAILURES, Database
from shared.db.notify import Channel, Listener
from shared.db.outbox import Claim, PointKind, claim_points, release_claims, settle_claims
from shared.telemetry.metrics import Metrics
from shared.vectors.collections import Collections
from shared.vectors.truth import Point, read_points

log = structlog.get_logger(__name__)

STORE_FAILURES = (grpc.aio.AioRpcError, ResponseHandlingException, QdrantException, *DATABASE_FAILURES)


class Relay:
    """One process's relay."""

    def __init__(
        self,
        database: Database,
        client: AsyncQdrantClient,
        collections: Collections,
        listener: Listener,
        clock: Clock,
        settings: RelaySettings,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._client = client
        self._collections = collections
        self._listener = listener
        self._clock = clock
        self._settings = settings
        self._relayed = metrics.outbox_relayed
        # Short, so that a relay's death delays little. One that overruns its lease does no harm: versions put its writes
        # in order, and the settling finds out.
        self._lease = timedelta(seconds=settings.lease_s)

    async def run(self) -> None:
        """Relay until cancelled. Stores that are away are waited for; nothing else stops it."""
        pause = self._settings.poll_s
        async with self._listener.subscribe(Channel.OUTBOX) as outbox:
            while True:
                try:
                    while await self.relay_batch():
                        pass
                    pause = self._settings.poll_s
                except STORE_FAILURES as error:
                    log.warning("relay_waits", error=type(error).__name__, detail=str(error).partition("\n")[0][:200])
                    pause = min(2 * pause, self._settings.retry_s)
                    await asyncio.sleep(pause)
                    continue
                await outbox.wait(pause)

    async def relay_batch(self) -> int:
        """Bring one batch of points up to date; returns how many. 0 = the queue is empty, or others hold what is in it."""
        async with self._database.transaction() as tx:
            claims = await claim_points(tx, self._clock, self._settings.batch, self._lease)
        if not claims:
            return 0
        groups: dict[tuple[PointKind, str], list[Claim]] = defaultdict(list)
        for claim in claims:
            groups[claim.kind, claim.model_version].append(claim)
        failures = [
            failure
            for (kind, model_version), group in groups.items()
            if (failure := await self._bring_up(kind, model_version, group)) is not None
        ]
        if failures:
            raise failures[0]
        return len(claims)

    async def _bring_up(self, kind: PointKind, model_version: str, claims: Sequence[Claim]) -> Exception | None:
        """Write points of one collection; answers why they could not be, so that the other collections still are."""
        try:
            async with self._database.snapshot() as tx:
                points = await read_points(tx, kind, model_version, [claim.point_id for claim in claims])
            await self._write(kind, model_version, claims, points)
        except STORE_FAILURES as error:
            await self._put_off(claims)
            return error
        except Exception:
            # One point that cannot be read or written must not hold up the others: each by itself, and the bad one aside.
            if len(claims) > 1:
                for claim in claims:
                    await self._bring_up(kind, model_version, [claim])
                return None
            log.exception("point_not_relayed", kind=kind.value, point_id=str(claims[0].point_id))
            await self._put_off(claims)
            return None
        except BaseException:
            # Cancelled: another relay may take these at once; the lease brings back those of the other collections.
            async with self._database.transaction() as tx:
                await release_claims(tx, self._clock, claims)
            raise
        async with self._database.transaction() as tx:
            await settle_claims(tx, self._clock, claims)
        self._relayed.labels("written").inc(len(claims))
        return None

    async def _put_off(self, claims: Sequence[Claim]) -> None:
        again = self._clock.now() + timedelta(seconds=self._settings.retry_s)
        async with self._database.transaction() as tx:
            await release_claims(tx, self._clock, claims, until=again)
        self._relayed.labels("refused").inc(len(claims))

    async def _write(
        self, kind: PointKind, model_version: str, claims: Sequence[Claim], points: dict[UUID, Point]
    ) -> None:
        collection = self._collections.named(kind, model_version)
        version = claims[0].version
        await write_points(self._client, collection, version, list(points.values()))
        gone = [claim.point_id for claim in claims if claim.point_id not in points]
        await delete_points(self._client, collection, version, gone)


def not_older_than(version: int) -> models.FieldCondition:
    """The condition under which a write of ``version`` must leave a point as it is. One without a version is replaced."""
    return models.FieldCondition(key="row_version", range=models.Range(gte=version))


async def write_points(client: AsyncQdrantClient, collection: str, version: int, points: Sequence[Point]) -> None:
    """Upsert whole points and wait until they are searchable. A point written with a newer version is left as it is."""
    if not points:
        return
    await client.upsert(
        collection,
        [
            models.PointStruct(
                id=str(point.point_id), vector=point.vector.tolist(), payload={**point.payload, "row_version": version}
            )
            for point in points
        ],
        wait=True,
        update_filter=models.Filter(must_not=[not_older_than(version)]),
    )


async def delete_points(client: AsyncQdrantClient, collection: str, version: int, point_ids: Sequence[UUID]) -> None:
    """Delete points and wait. A point written with a newer version is left."""
    if not point_ids:
        return
    ids = models.HasIdCondition(has_id=[str(point_id) for point_id in point_ids])
    selector = models.FilterSelector(filter=models.Filter(must=[ids], must_not=[not_older_than(version)]))
    await client.delete(collection, selector, wait=True)
