"""Stored faces that no detection server takes as they are: they fail by themselves, and the others of their photos do not."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

from sqlalchemy import update

from kith.jobs.v1 import jobs_pb2
from services.detection.domain.migrating import JOB_KIND as MIGRATE
from services.detection.domain.sessions import JOB_KIND as DETECT
from services.detection.jobs import DetectAssets
from services.detection.migration_jobs import MigrateModel
from services.detection.worker import open_handlers
from services.detection.worker import start as start_worker
from shared.db.tables_detection import faces
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.moving import Moving, detect, start_next

NARROW = 96


async def test_a_face_that_cannot_be_asked_for_fails_alone(
    detection: DetectionClient, running: Running, base: Foundation, album: Album, tmp_path: Path
) -> None:
    narrow = await start_next(running, tmp_path, NARROW)
    await running.worker(start_worker)
    found = await detect(detection, {f"photo-{n}": album.uri(n) for n in range(4)})
    several = list(await detection.list_faces("photo-1"))
    crowd = list(await detection.list_faces("photo-3"))
    assert min(len(several), len(crowd)) > 1
    tiny, away = several[0].id, crowd[-1].id
    async with base.database.transaction() as tx:
        boxes = update(faces)
        await tx.execute(boxes.where(faces.c.face_id == UUID(tiny)).values(box_width=5))
        await tx.execute(boxes.where(faces.c.face_id == UUID(away)).values(box_x=50_000))

    migration = await Moving(narrow.client).embed_all(narrow.version)
    assert migration.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    failures = {failure.id: failure for failure in migration.job.failures}
    assert failures.keys() == {tiny, away}
    assert {failure.reason for failure in failures.values()} == {"INVALID_FIELD"}
    assert "at least 8 pixels" in failures[tiny].message
    assert "outside the photo" in failures[away].message
    assert dict(migration.job.result) == {"faces": len(found) - 2, "failed": 2, "skipped": 0}
    assert migration.faces_embedded == len(found) - 2
    assert migration.job.progress.done == migration.job.progress.total == len(found)


async def test_one_photo_is_on_trial_at_a_time_whichever_job_it_is_of(base: Foundation, stack: AsyncExitStack) -> None:
    handlers = open_handlers(base, stack)
    detecting, migrating = handlers[DETECT], handlers[MIGRATE]
    assert isinstance(detecting, DetectAssets)
    assert isinstance(migrating, MigrateModel)
    assert detecting.trial is migrating.trial
