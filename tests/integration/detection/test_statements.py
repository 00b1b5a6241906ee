"""How many statements and calls a session costs: they grow by batches, never by photos or faces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from uuid import UUID

from sqlalchemy import update

from kith.detection.v1 import sessions_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from services.detection.domain.model import PhotoOutcome
from services.detection.repository.sessions import list_sessions
from shared.config import JobSettings
from shared.db.pagination import PageRequest
from shared.db.tables_detection import detection_sessions
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


async def test_sessions_are_listed_without_looking_at_their_photos(
    detection: DetectionClient, running: Running, base: Foundation, album: Album
) -> None:
    await detection.register({f"photo-{n}": album.uri(n) for n in range(8)})
    made = [(await detection.create_session([f"photo-{n}" for n in range(size)])).id for size in (1, 2, 8)]
    request = PageRequest(size=10, after=None, fingerprint="")
    with recording_statements(base.database) as sent:
        async with base.database.transaction() as tx:
            page = await list_sessions(tx, "default", request)
    assert [str(session.session_id) for session in page.items] == made[::-1]
    assert [session.outcomes[PhotoOutcome.PENDING] for session in page.items] == [8, 2, 1]
    assert len(sent) == 2
    assert not any("session_photos" in statement.text for statement in sent)


async def test_counts_are_put_right_when_the_session_ends(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    await detection.register({f"photo-{n}": album.uri(n) for n in range(6)})
    session = await detection.create_session()
    async with base.database.transaction() as tx:
        # As a worker that does not count would leave them, and one that counted twice.
        await tx.execute(update(detection_sessions).values(photos_faces=-4, photos_skipped=3))
    looker = open_looker(base, stack, running.settings.services.detection)
    await build_executor(base, looker).run_slice(UUID(session.job.id), 0)
    ended = await detection.get_session(session.id)
    photos = (await detection.outcomes(session.id)).values()
    assert ended.photos_with_faces == sum(photo.outcome == pb.PHOTO_OUTCOME_FACES for photo in photos) > 0
    assert ended.photos_with_faces + ended.photos_without_faces == 6
    assert (ended.photos_pending, ended.photos_skipped, ended.photos_failed) == (0, 0, 0)
    assert dict(ended.job.result)["faces"] == ended.photos_with_faces
