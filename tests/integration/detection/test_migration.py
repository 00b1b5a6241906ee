"""A library's faces embedded again with another model, by real servers of both and a real worker."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from kith.jobs.v1 import jobs_pb2
from services.detection.domain.breaking import TRIALS
from services.detection.inference.faces import ModelInfo
from services.detection.worker import start as start_worker
from services.persons.server import start as start_persons
from shared.config import Settings
from shared.db.outbox import queue_faces
from shared.db.tables_detection import face_embeddings, faces
from shared.errors import InvalidRequest, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.conftest import Running, eventually
from tests.integration.detection.client import DetectionClient, wait_relayed
from tests.integration.detection.conftest import Album
from tests.integration.detection.crashing import DEADLY
from tests.integration.detection.moving import (
    Moving,
    NextModel,
    check_turned,
    detect,
    start_next,
    without_next,
)
from tests.integration.detection.test_breaking_photos import CrashingServer
from tests.integration.detection.test_interruptions import ROOT, environment
from tests.integration.suggestions.album import People

NARROW = 96


@pytest.fixture
async def narrow(detection: DetectionClient, running: Running, tmp_path: Path) -> NextModel:
    """Servers of a model of another dimension, beside those of the library's."""
    return await start_next(running, tmp_path, NARROW)


async def test_every_face_is_embedded_beside_the_vectors_in_use(
    detection: DetectionClient, narrow: NextModel, running: Running, base: Foundation, album: Album, pack: ModelInfo
) -> None:
    await running.worker(start_worker)
    found = await detect(detection, {f"photo-{n:02d}": album.uri(n) for n in range(30)})
    async with base.database.transaction() as tx:
        # They may be taken back one day.
        await tx.execute(update(faces).where(faces.c.face_id == found[0]).values(state="IGNORED"))
        await tx.execute(update(faces).where(faces.c.face_id == found[1]).values(state="NOT_A_FACE"))
        # A box that somebody has drawn: nobody saw key points in it.
        drawn = update(faces).where(faces.c.face_id == found[2])
        await tx.execute(drawn.values(origin="MANUAL", confidence=0, landmarks=[0.0] * 10))
        await queue_faces(tx, base.clock, "default", found[:3])
    moving = Moving(narrow.client)
    started = await moving.start(narrow.version)
    assert (started.from_model_version, started.to_model_version) == (pack.version, narrow.version)
    assert started.job.progress.total == len(found)
    assert started.job.progress.unit == "face"
    ended = await moving.ended(started.id)

    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, ended.job
    assert dict(ended.job.result) == {"faces": len(found), "failed": 0, "skipped": 0}
    assert (ended.faces, ended.faces_embedded, ended.job.progress.done) == (len(found), len(found), len(found))
    await check_turned(base, narrow, pack.version, but=[found[2]])
    assert await moving.models() == [(pack.version, "ACTIVE", len(found)), (narrow.version, "SHADOW", len(found))]
    await wait_relayed(base)
    check = await detection.check()
    assert check.consistent
    counts = {report.collection: report.qdrant_count for report in check.collections}
    assert counts[base.collections.faces(narrow.version)] == counts[base.collections.faces(pack.version)] == len(found)
    # What the library is searched by has not changed.
    assert {face.model_version for face in await detection.list_faces()} == {pack.version}
    # Nobody was named, so there is nothing to measure by.
    assert ended.from_report.model_version == pack.version
    assert (ended.to_report.genuine_pairs, ended.to_report.impostor_pairs, ended.to_report.tar_at_far_1e3) == (0, 0, 0)


async def test_asked_again_it_embeds_what_was_found_since(
    detection: DetectionClient, narrow: NextModel, running: Running, stack: AsyncExitStack, album: Album
) -> None:
    moving = Moving(narrow.client)
    worker = await start_worker(running.settings, stack)
    before = await detect(detection, {f"a-{n}": album.uri(n) for n in range(4)})
    await worker.drain()

    waiting = await moving.start(narrow.version)
    again = await moving.start(narrow.version)
    assert (again.id, again.job.id, again.etag) == (waiting.id, waiting.job.id, waiting.etag)

    await running.worker(start_worker)
    first = await moving.ended(waiting.id)
    after = await detect(detection, {f"b-{n}": album.uri(n) for n in range(4)})
    missing = await moving.get(first.id)
    assert (missing.faces, missing.faces_embedded) == (len(after), len(before))

    second = await moving.embed_all(narrow.version)
    assert second.id == first.id
    assert second.job.id != first.job.id
    assert second.etag != first.etag
    assert second.job.progress.total == len(after) - len(before)
    assert second.faces_embedded == len(after)
    nothing_left = await moving.embed_all(narrow.version)
    assert dict(nothing_left.job.result)["faces"] == nothing_left.job.progress.total == 0
    assert nothing_left.HasField("to_report")


async def test_photos_that_cannot_be_read_fail_by_face_and_hold_up_nobody(
    detection: DetectionClient, narrow: NextModel, running: Running, base: Foundation, album: Album, tmp_path: Path
) -> None:
    await running.worker(start_worker)
    lost = tmp_path / "lost.jpg"
    lost.write_bytes(album.path(1).read_bytes())
    found = await detect(detection, {f"photo-{n}": album.uri(n) for n in range(4)} | {"lost": lost.as_uri()})
    gone = {face.id for face in await detection.list_faces("lost")}
    assert len(gone) > 1
    lost.unlink()

    moving = Moving(narrow.client)
    migration = await moving.embed_all(narrow.version)
    assert {failure.id for failure in migration.job.failures} == gone
    assert {failure.reason for failure in migration.job.failures} == {"URI_UNREADABLE"}
    assert (migration.job.progress.failed, migration.faces_embedded) == (len(gone), len(found) - len(gone))
    with pytest.raises(PreconditionFailed, match=f"^{len(gone)} faces") as refused:
        await moving.cut_over(migration)
    assert refused.value.reason is Reason.MIGRATION_INCOMPLETE
    assert refused.value.metadata["missing"] == str(len(gone))
    moved = await moving.cut_over(migration, allow_missing=True)
    assert moved.HasField("cut_over_time")
    assert {face.id for face in await detection.list_faces() if not face.model_version} == gone

    # The photo is found again, and the model in use asked for once more.
    lost.write_bytes(album.path(1).read_bytes())
    mended = await moving.embed_all(narrow.version)
    assert (mended.id, mended.faces_embedded) == (migration.id, len(found))
    assert mended.HasField("cut_over_time")


async def test_a_killed_worker_process_doubles_and_loses_nothing(
    detection: DetectionClient,
    narrow: NextModel,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
    album: Album,
    pack: ModelInfo,
) -> None:
    worker = await start_worker(running.settings, stack)
    found = await detect(detection, {f"photo-{n:03d}": album.uri(n) for n in range(120)})
    await worker.drain()
    moving = Moving(narrow.client)
    started = await moving.start(narrow.version)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.detection.worker", cwd=ROOT, env=next_environment(running.settings)
    )
    try:

        async def begun() -> bool:
            return (await moving.get(started.id)).job.progress.done > 0

        await eventually(begun, 60)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    left = await moving.get(started.id)
    assert 0 < left.job.progress.done == left.faces_embedded < len(found)

    await running.worker(start_worker)
    ended = await moving.ended(started.id)
    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, ended.job
    assert ended.job.progress.done == ended.job.progress.total == ended.faces_embedded == len(found)
    await check_turned(base, narrow, pack.version)
    await wait_relayed(base)
    assert (await detection.check()).consistent


async def test_a_photo_that_kills_the_new_servers_fails_alone(
    detection: DetectionClient,
    narrow: NextModel,
    running: Running,
    stack: AsyncExitStack,
    album: Album,
    tmp_path: Path,
    unused_tcp_port: int,
) -> None:
    worker = await start_worker(running.settings, stack)
    deadly = tmp_path / "deadly.jpg"
    deadly.write_bytes(album.path(1).read_bytes())
    found = await detect(
        detection, {f"photo-{n:02d}": album.uri(n) for n in range(12)} | {"photo-05-deadly": deadly.as_uri()}
    )
    await worker.drain()
    condemned = {face.id for face in await detection.list_faces("photo-05-deadly")}
    deadly.write_bytes(deadly.read_bytes() + DEADLY)

    crashing = CrashingServer(running.settings.model_copy(update={"model": narrow.settings}), unused_tcp_port)
    services = {"detection_next": crashing.settings.services.detection}
    knowing = running.settings.services.model_copy(update=services)
    running.settings = running.settings.model_copy(update={"services": knowing})
    keeping = asyncio.create_task(crashing.keep())
    try:
        await running.worker(start_worker)
        moving = Moving(narrow.client)
        migration = await moving.ended((await moving.start(narrow.version)).id)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert migration.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, migration.job
    assert {failure.id for failure in migration.job.failures} == condemned
    assert {failure.reason for failure in migration.job.failures} == {"DETECTOR_CRASHED"}
    assert migration.faces_embedded == len(found) - len(condemned)
    assert migration.job.progress.done == migration.job.progress.total == len(found)
    assert crashing.deaths == {-signal.SIGABRT: 1 + TRIALS}


async def test_what_cannot_be_migrated_to(
    detection: DetectionClient, narrow: NextModel, running: Running, base: Foundation, album: Album, pack: ModelInfo
) -> None:
    moving = Moving(narrow.client)
    with pytest.raises(InvalidRequest, match="to_model_version"):
        await moving.start("")
    with pytest.raises(PreconditionFailed, match="no model yet"):
        await moving.start(narrow.version)
    await running.worker(start_worker)
    await detect(detection, {"photo": album.uri(1)})
    with pytest.raises(PreconditionFailed, match=f"'{pack.version}' already"):
        await Moving(detection).start(pack.version)
    with pytest.raises(PreconditionFailed, match="no detection service runs the model 'buffalo_z'") as refused:
        await moving.start("buffalo_z")
    assert refused.value.reason is Reason.MODEL_MISMATCH
    # It names what runs where.
    assert f"this server runs '{narrow.version}'" in refused.value.message
    assert f"{running.settings.services.detection} runs '{pack.version}'" in refused.value.message
    await base.collections.drop(narrow.version)
    with pytest.raises(PreconditionFailed, match=r"services\.detection\.prepare"):
        await moving.start(narrow.version)
    assert await moving.models() == [(pack.version, "ACTIVE", await count_vectors(base))]


async def test_a_worker_that_knows_no_server_of_the_model_says_so(
    detection: DetectionClient, narrow: NextModel, running: Running, album: Album, pack: ModelInfo
) -> None:
    running.settings = without_next(running.settings)
    await running.worker(start_worker)
    await detect(detection, {"photo": album.uri(1)})
    moving = Moving(narrow.client)
    migration = await moving.ended((await moving.start(narrow.version)).id)
    assert migration.job.state == jobs_pb2.JOB_STATE_FAILED
    assert migration.job.error.reason == "MODEL_MISMATCH"
    assert f"no detection service runs the model '{narrow.version}'" in migration.job.error.message
    assert not migration.HasField("to_report")


async def test_the_report_measures_both_models_on_named_faces(
    detection: DetectionClient, narrow: NextModel, running: Running, base: Foundation, album: Album, pack: ModelInfo
) -> None:
    people = People(await running.server("persons", start_persons))
    await running.worker(start_worker)
    # Each photo is there twice: its faces and those of its copy are of the same people.
    await detect(detection, {f"{copy}-{n:02d}": album.uri(n) for n in range(12) for copy in ("a", "b")})
    places: dict[tuple[str, float], list[UUID]] = defaultdict(list)
    for face in await detection.list_faces():
        places[face.asset_id.partition("-")[2], face.box.x].append(UUID(face.id))
    for number, copies in enumerate(places.values()):
        await people.assign(await people.create(f"Person {number}"), copies)
    report = await Moving(narrow.client).embed_all(narrow.version)
    old, new = report.from_report, report.to_report
    assert (old.model_version, new.model_version) == (pack.version, narrow.version)
    assert old.genuine_pairs == new.genuine_pairs > 20
    assert old.impostor_pairs == new.impostor_pairs > 1000
    # A face and its copy are the same in any model.
    assert old.tar_at_far_1e3 == new.tar_at_far_1e3 == 1
    assert 0.3 < old.threshold_at_far_1e3 < 1
    assert 0.3 < report.neighbour_agreement < 1
    assert dict(old.thresholds) == {name: value for name, value in pack.thresholds.items() if name != "attach_margin"}
    assert new.equivalent_thresholds["knn_floor"] == pytest.approx(pack.thresholds["knn_floor"], abs=0.15)


async def count_vectors(base: Foundation) -> int:
    async with base.database.transaction() as tx:
        counted: int = await tx.scalar(select(func.count()).select_from(face_embeddings))
    return counted


def next_environment(settings: Settings) -> dict[str, str]:
    """What a worker process of its own needs to know the servers of both models."""
    return {**environment(settings), "KITH_SERVICES_DETECTION_NEXT": settings.services.detection_next or ""}
