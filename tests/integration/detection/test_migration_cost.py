"""How many statements a migration costs: they grow by batches of photos, never by photos or faces."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from kith.jobs.v1 import jobs_pb2
from services.detection.adapters.lookers import open_fleets
from services.detection.domain.migrating import JOB_KIND
from services.detection.domain.model import DetectionDeps
from services.detection.migration_jobs import MigrateModel
from shared.config import JobSettings
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler, SliceExecutor
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.handlers import build_executor, open_looker
from tests.integration.detection.moving import Moving, start_next


async def test_cost_grows_by_batches(
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
    album: Album,
    tmp_path: Path,
) -> None:
    model = await start_next(running, tmp_path, 96)
    moving = Moving(model.client)
    batch = base.settings.detection.session_batch
    # A heartbeat comes with time, not with photos.
    patient = JobSettings(lease_s=600, heartbeat_s=200)
    looker = open_looker(base, stack, running.settings.services.detection)
    detecting = replace(build_executor(base, looker), settings=patient)
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    handlers: dict[str, JobHandler] = {
        JOB_KIND: MigrateModel(base.database, deps, open_fleets(running.settings, stack), asyncio.Lock())
    }
    migrating = SliceExecutor(handlers, base.database, base.clock, base.ids, patient)

    async def cost(prefix: str, photos: int) -> tuple[int, int]:
        """Statements, and executions of them, that embed so many photos more."""
        # One photo again and again, so that every batch has as many faces as the other.
        names = [f"{prefix}-{n:03d}" for n in range(photos)]
        await detection.register(dict.fromkeys(names, album.uri(1)))
        session = await detection.create_session(names)
        await detecting.run_slice(UUID(session.job.id), 0)
        started = await moving.start(model.version)
        assert started.job.progress.total > photos
        with recording_statements(base.database) as sent:
            await migrating.run_slice(UUID(started.job.id), 0)
        ended = await moving.get(started.id)
        assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, ended.job
        assert ended.faces_embedded == ended.faces
        return len(sent), sum(statement.executions for statement in sent)

    await cost("warm", batch)
    one, one_executions = await cost("small", batch)
    four, four_executions = await cost("large", 4 * batch)
    per_batch = (four - one) / 3
    assert per_batch == int(per_batch)
    assert 0 < per_batch <= 12
    # Only the outbox's rows are sent one by one, in one round trip: one for each face.
    faces = len(await detection.list_faces("large-000")) * batch
    assert four_executions - one_executions == 3 * (per_batch - 1 + faces)
