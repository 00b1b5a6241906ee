"""The faces of a person who is forgotten: gone with vectors and crops, and found anew only by those who look again."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import func, select

from kith.detection.v1 import faces_pb2
from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import persons_pb2
from services.detection.adapters.crops import RemoteCrops, find_servers
from services.detection.domain.model import DetectionDeps
from services.detection.forgetting_jobs import ForgetFacesHandler
from services.detection.worker import start as start_detection_worker
from services.persons.domain.forgetting import STAGES
from services.persons.worker import start as start_persons_worker
from services.suggestions.worker import start as start_suggestions_worker
from shared.db.tables_detection import assets, face_embeddings
from shared.db.tables_persons import receipts
from shared.errors import NotFound, Reason, Unavailable
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler, SliceExecutor
from shared.jobs.forgetting import FORGET_FACES, Removal, leave_forgetting
from shared.jobs.model import Job, JobState
from shared.jobs.repository import get_job
from shared.rpc.channel import translate_errors
from tests.integration.clustering.kit import Kith, start_kith
from tests.integration.conftest import Running, eventually
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.known import look, look_at_album, relay

NOWHERE: Final = "[fe80::1%nowhere]:50051"
"""Stands for no server, and nothing is looked up to find that out: it is an address, of an interface that there is not."""


async def forget_faces(
    base: Foundation, running: Running, person_id: str, *, delete_faces: bool = True, address: str = ""
) -> Job:
    """Do this service's part, as the persons service would leave it, with sweeps of real servers."""
    settings = running.settings
    if address:
        services = settings.services.model_copy(update={"detection": address})
        settings = settings.model_copy(update={"services": services})
    deps = DetectionDeps(base.clock, base.ids, settings.detection)
    forgets = base.ids.new_uuid()
    async with base.database.transaction() as tx:
        row = {
            "person_id": UUID(person_id),
            "library_id": "default",
            "job_id": forgets,
            "delete_faces": delete_faces,
            "created_at": base.clock.now(),
        }
        await tx.execute(receipts.delete())
        await tx.execute(receipts.insert(), row)
        job = await leave_forgetting(tx, base.ids, base.clock, FORGET_FACES, "default", forgets, "anna")
    handlers: dict[str, JobHandler] = {FORGET_FACES: ForgetFacesHandler(base.database, deps, RemoteCrops(settings))}
    await SliceExecutor(handlers, base.database, base.clock, base.ids, settings.jobs).run_slice(job.job_id, 0)
    async with base.database.transaction() as tx:
        return await get_job(tx, "default", job.job_id)


@pytest.fixture
async def faces(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> list[faces_pb2.Face]:
    return await look_at_album(detection, running, base, stack, album, 3)


async def sweep(detection: DetectionClient) -> tuple[int, int]:
    answer = await detection.faces.SweepCrops(faces_pb2.SweepCropsRequest())
    return answer.dropped_count, answer.left_count


async def own(running: Running, faces: list[faces_pb2.Face]) -> tuple[Kith, str]:
    """A person who has these faces."""
    kith = await start_kith(running)
    person_id = await kith.create("Ada")
    await kith.assign([face.id for face in faces], person_id)
    return kith, person_id


async def test_faces_go_with_vectors_and_crops_and_the_photos_stay(
    faces: list[faces_pb2.Face], detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack
) -> None:
    gone, kept = faces[:2], faces[2:]
    _, person_id = await own(running, gone)
    for face in (*gone, kept[0]):
        await detection.faces.GetFaceCrop(faces_pb2.GetFaceCropRequest(face_id=face.id))
    assert await sweep(detection) == (0, 0)
    job = await forget_faces(base, running, person_id)
    assert job.state is JobState.SUCCEEDED
    version = gone[0].model_version
    expected = Removal({"crops": 2, "face_embeddings": 2, "faces": 2}, {version: 2})
    assert Removal.from_json(job.result or {}) == expected
    assert await sweep(detection) == (0, 0)
    with pytest.raises(NotFound):
        async with translate_errors("detection"):
            await detection.faces.GetFaceCrop(faces_pb2.GetFaceCropRequest(face_id=gone[0].id))
    await relay(base)
    assert {face.id for face in await detection.list_faces()} == {face.id for face in kept}

    async def is_consistent() -> bool:
        return (await detection.check()).consistent

    # The relay of a worker may still be at what it took before ours came by.
    await eventually(is_consistent)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.sum(assets.c.face_count))) == len(kept)
        assert await tx.scalar(select(func.count()).select_from(face_embeddings)) == len(kept)
    # The photos count as looked at; whoever looks again gets the faces anew, and they are nobody's.
    await look(detection, running, base, stack)
    assert len(await detection.list_faces()) == len(kept)
    await look(detection, running, base, stack, redetect=True)
    again = await detection.list_faces()
    assert len(again) == len(faces)
    found = [face for face in again if face.id not in {face.id for face in kept}]
    assert not {face.id for face in found} & {face.id for face in gone}
    assert [face.person_id for face in found] == ["", ""]


async def test_a_person_is_forgotten_by_all_services_together(
    faces: list[faces_pb2.Face], detection: DetectionClient, running: Running, base: Foundation
) -> None:
    kith, person_id = await own(running, faces[:2])
    await kith.compute(person_id)
    await detection.faces.GetFaceCrop(faces_pb2.GetFaceCropRequest(face_id=faces[0].id))
    for start in (start_persons_worker, start_suggestions_worker, start_detection_worker):
        await running.worker(start)
    etag = (await kith.people.GetPerson(persons_pb2.GetPersonRequest(person_id=person_id))).person.etag
    request = persons_pb2.ForgetPersonRequest(person_id=person_id, etag=etag, delete_faces=True)
    job = await kith.ended((await kith.people.ForgetPerson(request)).job.id)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    assert (job.progress.done, job.progress.total) == (len(STAGES), len(STAGES))
    answer = await kith.people.GetReceipt(persons_pb2.GetReceiptRequest(person_id=person_id))
    deleted = {store.store: store.deleted_count for store in answer.receipt.stores}
    assert (deleted["postgres.faces"], deleted["postgres.centroids"], deleted["detection.crops"]) == (2, 1, 1)
    assert (await detection.check()).consistent
    assert len(await detection.list_faces()) == len(faces) - 2


async def test_without_the_word_for_it_no_face_is_deleted(
    faces: list[faces_pb2.Face], detection: DetectionClient, running: Running, base: Foundation
) -> None:
    _, person_id = await own(running, faces[:1])
    job = await forget_faces(base, running, person_id, delete_faces=False)
    assert (job.state, Removal.from_json(job.result or {})) == (JobState.SUCCEEDED, Removal({}, {}))
    assert len(await detection.list_faces()) == len(faces)


async def test_a_server_that_does_not_answer_is_waited_for(
    faces: list[faces_pb2.Face], detection: DetectionClient, running: Running, base: Foundation
) -> None:
    _, person_id = await own(running, faces[:1])
    await detection.faces.GetFaceCrop(faces_pb2.GetFaceCropRequest(face_id=faces[0].id))
    # Nobody listens where somebody else has the port.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        silent = f"127.0.0.1:{taken.getsockname()[1]}"
        for address in (silent, NOWHERE):
            waiting = await forget_faces(base, running, person_id, address=address)
            assert waiting.state is JobState.RUNNING
    # What it had deleted is gone; the crop still is in memory until a sweep gets through.
    assert await sweep(detection) == (1, 0)


async def test_an_address_of_no_server_is_told() -> None:
    with pytest.raises(Unavailable, match="stands for no server now") as refused:
        await find_servers(f"dns:///{NOWHERE}")
    assert refused.value.reason is Reason.SERVICE_UNAVAILABLE


async def test_every_server_behind_a_name_is_found() -> None:
    assert await find_servers("127.0.0.1:50051") == ["127.0.0.1:50051"]
    assert "127.0.0.1:7" in await find_servers("dns:///localhost:7")
