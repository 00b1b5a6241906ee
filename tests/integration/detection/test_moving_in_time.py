"""A photo whose capture time changes takes along what persons derive from it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2, faces_pb2
from kith.persons.v1 import persons_pb2
from services.persons.worker import start as start_persons_worker
from shared.db.tables_detection import assets
from shared.db.tables_shared import jobs
from shared.foundation import Foundation
from shared.jobs.convert import to_timestamp
from tests.integration.clustering.kit import Kith, start_kith
from tests.integration.conftest import Running, eventually
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.known import look, look_at_album

LONG_AGO = datetime(1999, 5, 4, tzinfo=UTC)


@pytest.fixture
async def known(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> list[faces_pb2.Face]:
    return await look_at_album(detection, running, base, stack, album, 3)


@pytest.fixture
async def kith(known: list[faces_pb2.Face], running: Running) -> Kith:
    kith = await start_kith(running)
    await running.worker(start_persons_worker)
    return kith


async def first_seen(kith: Kith, person_id: str) -> datetime:
    answer = await kith.people.GetPerson(persons_pb2.GetPersonRequest(person_id=person_id))
    return answer.person.first_seen.ToDatetime(tzinfo=UTC)


async def test_a_photo_registered_with_another_time(
    known: list[faces_pb2.Face], kith: Kith, detection: DetectionClient, base: Foundation, album: Album
) -> None:
    person_id = await kith.create("Ada")
    face = known[0]
    await kith.assign([face.id], person_id)
    taken = face.captured_at.time.ToDatetime(tzinfo=UTC)
    assert await first_seen(kith, person_id) == taken
    number = int(face.asset_id.removeprefix("photo-"))
    moved = assets_pb2.NewAsset(id=face.asset_id, uri=album.uri(number))
    moved.captured_at.CopyFrom(types_pb2.CaptureTime(time=to_timestamp(LONG_AGO)))
    await detection.assets.RegisterAssets(assets_pb2.RegisterAssetsRequest(assets=[moved]))

    async def followed() -> bool:
        return await first_seen(kith, person_id) == LONG_AGO

    await eventually(followed)
    # Registering what is known already starts nothing.
    async with base.database.transaction() as tx:
        before = await tx.rows(select(jobs.c.job_id))
    await detection.assets.RegisterAssets(assets_pb2.RegisterAssetsRequest(assets=[moved]))
    async with base.database.transaction() as tx:
        assert await tx.rows(select(jobs.c.job_id)) == before


async def test_a_photo_that_redetection_reads_another_time_from(
    known: list[faces_pb2.Face],
    kith: Kith,
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
) -> None:
    face = known[0]
    taken = face.captured_at.time.ToDatetime(tzinfo=UTC)
    async with base.database.transaction() as tx:
        await tx.execute(update(assets).where(assets.c.asset_id == face.asset_id).values(captured_at=LONG_AGO))
    person_id = await kith.create("Ada")
    await kith.assign([face.id], person_id)
    assert await first_seen(kith, person_id) == LONG_AGO
    await look(detection, running, base, stack, redetect=True)

    async def followed() -> bool:
        return await first_seen(kith, person_id) == taken

    await eventually(followed)
