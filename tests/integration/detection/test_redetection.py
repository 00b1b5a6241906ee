"""What re-detection does to faces that people have worked on, and to a library with another model."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from datetime import UTC
from pathlib import Path
from uuid import UUID

import cv2
import pytest
from sqlalchemy import insert, select, update

from kith.jobs.v1 import jobs_pb2
from services.detection.inference.faces import ModelInfo
from services.detection.worker import start as start_worker
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_persons import changes, exclusions, persons
from shared.db.tables_shared import vector_outbox
from shared.foundation import Foundation
from tests.integration.conftest import Running, eventually
from tests.integration.detection.client import DetectionClient, uuids, wait_relayed
from tests.integration.detection.conftest import Album
from tests.integration.detection.handlers import build_executor, open_looker
from tests.integration.waiting import somebody_waits


@pytest.fixture
async def found(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> list[UUID]:
    """Faces of photos that were looked at once."""
    await detection.register({f"photo-{n}": album.uri(n) for n in range(6)})
    await look(detection, running, base, stack)
    return uuids(await detection.list_faces())


async def look(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, *, redetect: bool = False
) -> jobs_pb2.Job:
    """A session over everything, run here."""
    session = await detection.create_session(redetect=redetect)
    looker = open_looker(base, stack, running.settings.services.detection)
    await build_executor(base, looker).run_slice(UUID(session.job.id), 0)
    return (await detection.get_session(session.id)).job


async def test_faces_not_found_again(
    found: list[UUID],
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
) -> None:
    plain, ignored, drawn, excluded, nudged = found[:5]
    async with base.database.transaction() as tx:
        # Far from where any face is: none of these can be found again.
        moved = update(faces).values(box_x=faces.c.box_x + 5000)
        await tx.execute(moved.where(faces.c.face_id.in_([plain, ignored, drawn, excluded])))
        await tx.execute(update(faces).where(faces.c.face_id == ignored).values(state="IGNORED"))
        await tx.execute(update(faces).where(faces.c.face_id == drawn).values(origin="MANUAL"))
        await tx.execute(
            update(faces).where(faces.c.face_id == nudged).values(box_x=faces.c.box_x + 2, state="IGNORED")
        )
    await exclude(base, excluded)
    before = len(found)
    job = await look(detection, running, base, stack, redetect=True)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    async with base.database.transaction() as tx:
        rows = {row.face_id: row for row in await tx.rows(select(faces))}
        vectors = {row.face_id for row in await tx.rows(select(face_embeddings.c.face_id))}
    assert plain not in rows
    assert {ignored, drawn, excluded, nudged} <= set(rows)
    # Four were added where the moved ones had been.
    assert len(rows) == before - 1 + 4
    assert rows[nudged].state == "IGNORED"
    assert vectors == set(rows)
    for photo in {row.asset_id for row in rows.values()}:
        assert await count_of(base, photo) == sum(row.asset_id == photo for row in rows.values())


async def test_points_of_deleted_faces_leave_qdrant(
    found: list[UUID],
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
) -> None:
    await running.worker(start_worker)
    await wait_relayed(base)
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == found[0]).values(box_x=9000))
    session = await detection.wait_session((await detection.create_session(redetect=True)).id)
    assert (session.faces_added, session.faces_kept, session.faces_gone) == (1, len(found) - 1, 1)
    await wait_relayed(base)
    assert (await detection.check()).consistent


async def test_faces_that_go_and_stay_are_queued_in_one_order(
    found: list[UUID],
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
) -> None:
    first, last = min(found), max(found)
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == last).values(box_x=9000))

    row = select(vector_outbox.c.point_id).with_for_update()
    async with base.database.transaction() as relay:
        await relay.execute(row.where(vector_outbox.c.point_id == first))
        looking = asyncio.create_task(look(detection, running, base, stack, redetect=True))
        await eventually(lambda: somebody_waits(base))
        # If the step held the row of the face that goes already, one of the two would be killed here.
        await relay.execute(row.where(vector_outbox.c.point_id == last))
    assert (await looking).state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert last not in uuids(await detection.list_faces())


async def test_a_library_keeps_its_model(
    found: list[UUID],
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
    pack: ModelInfo,
) -> None:
    async with base.database.transaction() as tx:
        row = await tx.one_or_none(select(models))
        assert row is not None
        assert (row.model_version, row.dimension, row.state) == (pack.version, pack.dimension, "ACTIVE")
        assert row.thresholds == dict(pack.thresholds)
        assert row.calibration == dict(pack.calibration)
        await tx.execute(update(models).values(state="RETIRED"))
        await tx.execute(
            insert(models),
            {**row._mapping, "model_version": "another_model", "state": "ACTIVE"},
        )
    job = await look(detection, running, base, stack, redetect=True)
    assert job.state == jobs_pb2.JOB_STATE_FAILED
    assert job.error.reason == "MODEL_MISMATCH"
    assert "another_model" in job.error.message
    assert pack.version in job.error.message
    assert job.progress.done == 0


async def test_a_capture_time_learnt_later_reaches_the_index(
    detection: DetectionClient, running: Running, base: Foundation, album: Album, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    image = cv2.imread(str(album.path(1)))
    assert image is not None
    # Without EXIF first, then the photo as it was taken.
    cv2.imwrite(str(photo), image)
    await detection.register({"photo": photo.as_uri()})
    await running.worker(start_worker)
    first = await detection.wait_session((await detection.create_session()).id)
    assert first.faces_added
    await wait_relayed(base)
    assert await read_indexed_times(base) == {None}
    shutil.copy(album.path(1), photo)
    again = await detection.wait_session((await detection.create_session(redetect=True)).id)
    assert (again.faces_kept, again.faces_added) == (first.faces_added, 0)
    await wait_relayed(base)
    async with base.database.transaction() as tx:
        taken = await tx.scalar(select(assets.c.captured_at))
    assert taken is not None
    assert await read_indexed_times(base) == {taken.isoformat()}
    assert {face.captured_at.time.ToDatetime(UTC) for face in await detection.list_faces()} == {taken}


async def read_indexed_times(base: Foundation) -> set[object]:
    """The capture times of the points in Qdrant."""
    async with base.database.transaction() as tx:
        version = await tx.scalar(select(models.c.model_version))
    points, _ = await base.qdrant.scroll(base.collections.faces(version), limit=1000, with_payload=True)
    return {(point.payload or {}).get("captured_at") for point in points}


async def exclude(base: Foundation, face_id: UUID) -> None:
    """Say that a face is not some person, as the persons service would have written it."""
    now = base.clock.now()
    person_id, change_id = base.ids.new_uuid(), base.ids.new_uuid()
    async with base.database.transaction() as tx:
        made = {"library_id": "default", "created_at": now}
        person = {"person_id": person_id, "name": "Ada", "name_key": "ada", "updated_at": now}
        await tx.execute(insert(persons), {**made, **person})
        change = {"change_id": change_id, "kind": "FACE_EXCLUDED", "actor": "test", "rpc": "test"}
        touched = {"person_ids": [person_id], "face_ids": [face_id], "before": {}, "after": {}}
        await tx.execute(insert(changes), {**made, **change, **touched})
        pair = {"exclusion_id": base.ids.new_uuid(), "face_id": face_id, "person_id": person_id}
        await tx.execute(insert(exclusions), {**made, **pair, "created_by": "test", "change_id": change_id})


async def count_of(base: Foundation, asset_id: str) -> int:
    """The face count a photo shows."""
    async with base.database.transaction() as tx:
        counted: int = await tx.scalar(select(assets.c.face_count).where(assets.c.asset_id == asset_id))
    return counted
