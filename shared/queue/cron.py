"""What a worker does now and then, besides its jobs."""

from __future__ import annotations

import asyncio

import structlog

from shared.clock import Clock
from shared.db.engine import DATABASE_FAILURES, Database
from shared.db.idempotency import delete_expired_answers
from shared.db.outbox import count_waiting
from shared.db.people_queue import count_people
from shared.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

HOUR_S = 3600.0
MEASURE_S = 5.0


async def forget_old_answers(database: Database, clock: Clock) -> None:
    """Drop answers kept for retries once they are older than a day. Any number of workers may do so at once."""
    while True:
        try:
            async with database.transaction() as tx:
                forgotten = await delete_expired_answers(tx, clock)
            log.info("old_answers_forgotten", count=forgotten)
        except DATABASE_FAILURES as error:
            log.warning("old_answers_kept", error=type(error).__name__)
        await asyncio.sleep(HOUR_S)


async def measure_outbox(database: Database, clock: Clock, metrics: Metrics) -> None:
    """Show how far Qdrant is behind."""
    while True:
        try:
            async with database.transaction() as tx:
                waiting, oldest = await count_waiting(tx)
            metrics.outbox_pending.set(waiting)
            metrics.outbox_lag_seconds.set((clock.now() - oldest).total_seconds() if oldest else 0)
        except DATABASE_FAILURES as error:
            log.warning("outbox_not_measured", error=type(error).__name__)
        await asyncio.sleep(MEASURE_S)


async def measure_people(database: Database, clock: Clock, metrics: Metrics) -> None:
    """Show how far people are behind their faces."""
    while True:
        try:
            async with database.transaction() as tx:
                waiting, oldest = await count_people(tx)
            metrics.people_to_settle.set(waiting)
            metrics.people_to_settle_seconds.set((clock.now() - oldest).total_seconds() if oldest else 0)
        except DATABASE_FAILURES as error:
            log.warning("people_not_measured", error=type(error).__name__)
        await asyncio.sleep(MEASURE_S)
