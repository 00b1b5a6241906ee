"""Sessions that are paused, cancelled, or lose their worker: each photo is stored once all the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select, update

from kith.detection.v1 import sessions_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from services.detection.worker import start as start_detection_worker
from shared.config import Settings
from shared.db.tables_detection import faces
from shared.db.tables_shared import job_slices, jobs
from shared.foundation import Foundation, start_worker
from tests.integration.conftest import Running, eventually
from tests.integration.detection.client import DetectionClient, count_stored, wait_relayed
from tests.integration.detection.conftest import Album
from tests.integration.detection.handlers import HeldLooker, build_executor, build_handler, open_looker

ROOT = Path(__file__).resolve().parents[3]
PHOTOS = 40
BATCH = 16


async def register(detection: DetectionClient, album: Album, photos: int = PHOTOS) -> None:
    await detection.register({f"photo-{n:03d}": album.uri(n) for n in range(photos)})


async def wait_done(detection: DetectionClient, session_id: str, photos: int) -> None:
    """Until so many photos are stored, or more."""

    async def done() -> bool:
        return (await detection.get_session(session_id)).job.progress.done >= photos

    await eventually(done, 60)


async def check_stored_once(detection: DetectionClient, base: Foundation, session_id: str) -> None:
    """Every photo has an outcome, and each of its faces is there once, in both stores."""
    photos = await detection.outcomes(session_id)
    found = sum(photo.face_count for photo in photos.values())
    assert all(photo.outcome != pb.PHOTO_OUTCOME_PENDING for photo in photos.values())
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(faces.c.asset_id, func.count().label("faces")).group_by(faces.c.asset_id))
    stored = {row.asset_id: row.faces for row in rows}
    assert stored == {photo.asset_id: photo.face_count for photo in photos.values() if photo.face_count}
    await wait_relayed(base)
    assert await count_stored(base) == (found, found)
    session = await detection.get_session(session_id)
    assert session.faces_added == found
    assert session.job.progress.done == session.job.progress.total == len(photos)


async def test_pause_keeps_what_is_done_and_resume_does_the_rest(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    await register(detection, album)
    looker = HeldLooker(open_looker(base, stack, running.settings.services.detection), BATCH + 3)
    worker = await start_worker(base, stack, "detection", build_handler(base, looker))
    stack.push_async_callback(worker.drain)
    session = await detection.create_session()
    await looker.reached.wait()
    await wait_done(detection, session.id, BATCH)
    held = await detection.sessions.PauseDetectionSession(pb.PauseDetectionSessionRequest(session_id=session.id))
    assert held.session.job.state == jobs_pb2.JOB_STATE_PAUSED
    looker.release()

    async def given_back() -> bool:
        async with base.database.transaction() as tx:
            leased: int = await tx.scalar(select(func.count()).where(job_slices.c.lease_token.is_not(None)))
            return leased == 0

    await eventually(given_back)
    paused = await detection.get_session(session.id)
    assert BATCH <= paused.job.progress.done < PHOTOS
    assert paused.photos_pending == PHOTOS - paused.job.progress.done
    await detection.sessions.ResumeDetectionSession(pb.ResumeDetectionSessionRequest(session_id=session.id))
    ended = await detection.wait_session(session.id)
    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    await check_stored_once(detection, base, session.id)


async def test_cancel_keeps_what_was_found(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    await register(detection, album)
    looker = HeldLooker(open_looker(base, stack, running.settings.services.detection), BATCH)
    session = await detection.create_session()
    executor = build_executor(base, looker)
    work = asyncio.create_task(executor.run_slice(UUID(session.job.id), 0))
    await looker.reached.wait()

    await wait_done(detection, session.id, BATCH)
    request = pb.CancelDetectionSessionRequest(session_id=session.id)
    cancelled = (await detection.sessions.CancelDetectionSession(request)).session
    looker.release()
    await work
    ended = await detection.get_session(session.id)
    assert ended.job.state == jobs_pb2.JOB_STATE_CANCELLED
    assert ended.photos_pending == PHOTOS - BATCH
    assert len(await detection.list_faces()) == ended.faces_added == cancelled.faces_added > 0


async def test_a_worker_that_goes_away_hands_its_slice_on(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    await register(detection, album)
    real = open_looker(base, stack, running.settings.services.detection)
    session = await detection.create_session()
    job_id = UUID(session.job.id)
    looker = HeldLooker(real, BATCH + 5)
    work = asyncio.create_task(build_executor(base, looker).run_slice(job_id, 0))
    await looker.reached.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert (await detection.get_session(session.id)).job.progress.done in (0, BATCH)
    await build_executor(base, real).run_slice(job_id, 0)
    assert (await detection.get_session(session.id)).job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    await running.worker(start_detection_worker)
    await check_stored_once(detection, base, session.id)


async def test_killed_worker_process(
    detection: DetectionClient, running: Running, base: Foundation, album: Album
) -> None:
    photos = 120
    await register(detection, album, photos)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.detection.worker", cwd=ROOT, env=environment(running.settings)
    )
    try:
        session = await detection.create_session()
        await wait_done(detection, session.id, 1)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    left = await detection.get_session(session.id)
    assert 0 < left.job.progress.done < photos
    await running.worker(start_detection_worker)
    ended = await detection.wait_session(session.id)
    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    await check_stored_once(detection, base, session.id)


async def test_a_pause_outlives_the_worker_and_costs_no_rate(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    photos = 120
    await register(detection, album, photos)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.detection.worker", cwd=ROOT, env=environment(running.settings)
    )
    try:
        session = await detection.create_session()
        await wait_done(detection, session.id, 1)
        await detection.pause(session.id)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    executor = build_executor(base, open_looker(base, stack, running.settings.services.detection))
    paused = await detection.get_session(session.id)
    # Nobody takes a slice of a paused job, held by a dead worker or free.
    await executor.run_slice(UUID(session.job.id), 0)
    assert (await detection.get_session(session.id)).job == paused.job
    assert paused.job.state == jobs_pb2.JOB_STATE_PAUSED
    assert paused.job.progress.rate_per_second == 0
    assert not paused.job.progress.HasField("time_left")
    async with base.database.transaction() as tx:
        # The work began yesterday: a rate counted from then would be next to nothing.
        await tx.execute(update(jobs).values(rate_from=jobs.c.rate_from - timedelta(days=1)))

    resumed_at = base.clock.now()
    await detection.resume(session.id)
    await running.worker(start_detection_worker)
    ended = await detection.wait_session(session.id)
    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    async with base.database.transaction() as tx:
        row = await tx.one_or_none(select(jobs.c.rate_from, jobs.c.rate_from_done))
    assert row is not None
    assert row.rate_from >= resumed_at
    assert row.rate_from_done == paused.job.progress.done
    await check_stored_once(detection, base, session.id)


def environment(settings: Settings) -> dict[str, str]:
    """What a process of its own needs to use the stores and servers of a test."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "shared" / "gen"))),
        "KITH_ENVIRONMENT": "test",
        "KITH_DATABASE_URL": settings.database.url.get_secret_value(),
        "KITH_REDIS_URL": settings.redis.url.get_secret_value(),
        "KITH_REDIS_QUEUE_PREFIX": settings.redis.queue_prefix,
        "KITH_QDRANT_URL": settings.qdrant.url,
        "KITH_QDRANT_PREFIX": settings.qdrant.prefix,
        "KITH_MODEL_PACK": settings.model.pack,
        "KITH_MODEL_PROVIDER": settings.model.provider.value,
        "KITH_IMAGES_ROOTS": json.dumps(settings.images.roots),
        "KITH_SERVICES_DETECTION": settings.services.detection,
        "KITH_RPC_PORT": "0",
        "KITH_RPC_HEALTH_PORT": "0",
        # What a killed relay had in hand is taken over after three times that.
        "KITH_QDRANT_TIMEOUT_S": "1",
        "KITH_JOBS_LEASE_S": "3",
        "KITH_JOBS_HEARTBEAT_S": "0.5",
        "KITH_JOBS_DISPATCH_INTERVAL_S": "0.2",
    }
