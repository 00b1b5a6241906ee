"""How many statements and calls a session costs: they grow by batches, never by photos or faces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from uuid import UUID

from kith.jobs.v1 import jobs_pb2
from shared.config import JobSettings
from shared.foundation import Foundation
from shared.vectors.relay import Relay
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.handlers import build_executor, open_looker


@contextmanager
def counting_statements(base: Foundation) -> Iterator[Counter[str]]:
    """Counts statements sent to PostgreSQL inside the block, and executions of those sent for many rows."""
    counts: Counter[str] = Counter()
    with recording_statements(base.database) as sent:
        yield counts
    counts["statements"] = len(sent)
    counts["executions"] = sum(statement.executions for statement in sent)


@contextmanager
def counting_qdrant(base: Foundation) -> Iterator[Counter[str]]:
    """Counts calls that write to Qdrant inside the block."""
    counts: Counter[str] = Counter()
    upsert, delete = base.qdrant.upsert, base.qdrant.delete

    async def counted_upsert(*arguments: object, **named: object) -> object:
        counts["calls"] += 1
        return await upsert(*arguments, **named)  # type: ignore[arg-type]

    async def counted_delete(*arguments: object, **named: object) -> object:
        counts["calls"] += 1
        return await delete(*arguments, **named)  # type: ignore[arg-type]

    base.qdrant.upsert, base.qdrant.delete = counted_upsert, counted_delete  # type: ignore[method-assign, assignment]
    try:
        yield counts
    finally:
        base.qdrant.upsert, base.qdrant.delete = upsert, delete  # type: ignore[method-assign]


async def test_cost_grows_by_batches(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    batch = base.settings.detection.session_batch
    looker = open_looker(base, stack, running.settings.services.detection)
    settings = base.settings
    # A heartbeat comes with time, not with photos.
    executor = replace(build_executor(base, looker), settings=JobSettings(lease_s=600, heartbeat_s=200))
    relay = Relay(base.database, base.qdrant, base.collections, base.listener, base.clock, settings.relay, base.metrics)

    async def run_session(prefix: str, photos: int, *, redetect: bool = False) -> tuple[Counter[str], Counter[str]]:
        names = [f"{prefix}-{n:03d}" for n in range(photos)]
        if not redetect:
            # One photo again and again, so that every batch has as many faces as the other.
            await detection.register(dict.fromkeys(names, album.uri(1)))
        session = await detection.create_session(names, redetect=redetect)
        with counting_statements(base) as statements:
            await executor.run_slice(UUID(session.job.id), 0)
        ended = await detection.get_session(session.id)
        assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
        assert ended.job.progress.done == photos
        with counting_qdrant(base) as calls:
            while await relay.relay_batch():
                pass
        return statements, calls

    await run_session("warm", batch)
    one, one_calls = await run_session("small", batch)
    four, four_calls = await run_session("large", 4 * batch)
    again, _ = await run_session("large", 4 * batch, redetect=True)
    per_batch = (four["statements"] - one["statements"]) / 3
    assert per_batch == int(per_batch)
    assert 0 < per_batch <= 20
    # A photo of three faces costs less than one execution.
    assert four["executions"] - one["executions"] == 3 * per_batch < 3 * batch
    assert again["statements"] <= four["statements"] + 4
    assert one_calls["calls"] == four_calls["calls"] == 1
