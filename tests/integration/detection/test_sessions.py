"""Detection sessions from registration to the points in Qdrant, through a real server and a real worker."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import func, select

from kith.detection.v1 import doctor_pb2, faces_pb2, sessions_pb2
from kith.jobs.v1 import jobs_pb2
from services.detection.domain.model import DetectionDeps, OptionOverrides
from services.detection.domain.sessions import AssetFilter, CreateSession, create_session
from services.detection.worker import start as start_worker
from shared.caller import Caller
from shared.db.tables_detection import session_photos
from shared.db.tables_shared import job_slices
from shared.errors import InvalidRequest, NotFound
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient, count_stored, uuids, wait_relayed
from tests.integration.detection.conftest import Album


async def test_session_reports_bad_photos_and_stores_the_rest(
    detection: DetectionClient, running: Running, base: Foundation, album: Album, broken: dict[str, Path]
) -> None:
    good = {f"good-{n:02d}": album.uri(n) for n in range(20)}
    await detection.register(good | {name: path.as_uri() for name, path in broken.items()})
    await running.worker(start_worker)
    session = await detection.create_session()
    assert session.photos == session.photos_pending == 24
    session = await detection.wait_session(session.id)

    job = session.job
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert {failure.id: failure.reason for failure in job.failures} == {
        "corrupt": "IMAGE_UNREADABLE",
        "empty": "IMAGE_UNREADABLE",
        "text": "IMAGE_UNREADABLE",
        "huge": "IMAGE_TOO_LARGE",
    }
    assert (job.progress.done, job.progress.failed, job.progress.total) == (24, 4, 24)
    assert dict(job.result)["photos"] == 24
    assert dict(job.result)["failed"] == session.photos_failed == 4
    assert session.photos_pending == 0

    photos = await detection.outcomes(session.id)
    assert set(photos) == set(good) | set(broken)
    faces = await detection.list_faces()
    assert len(faces) == sum(photo.face_count for photo in photos.values()) == session.faces_added > 20
    assert photos["huge"].failure.reason == "IMAGE_TOO_LARGE"

    await wait_relayed(base)
    assert await count_stored(base) == (len(faces), len(faces))
    check = await detection.check()
    assert check.consistent
    assert check.collections[0].compared == len(faces)
    stats = await detection.faces.GetFaceStats(faces_pb2.GetFaceStatsRequest())
    assert (stats.assets, stats.assets_detected, stats.faces) == (24, 20, len(faces))
    assert (stats.active, stats.assigned, stats.clustered, stats.unknown) == (len(faces), 0, 0, len(faces))


async def test_second_session_skips_and_redetection_keeps_every_face(
    detection: DetectionClient, running: Running, base: Foundation, album: Album
) -> None:
    await detection.register({f"photo-{n}": album.uri(n) for n in range(6)})
    await running.worker(start_worker)
    first = await detection.wait_session((await detection.create_session()).id)
    before = await detection.list_faces()

    second = await detection.create_session()
    assert (second.photos, second.photos_skipped, second.job.progress.done) == (6, 6, 6)
    second = await detection.wait_session(second.id)
    assert second.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert second.faces_added == 0

    again = await detection.wait_session((await detection.create_session(redetect=True)).id)
    assert (again.faces_added, again.faces_kept, again.faces_gone) == (0, first.faces_added, 0)
    assert await detection.list_faces() == before
    await wait_relayed(base)
    assert (await detection.check()).consistent
    sessions = await detection.sessions.ListDetectionSessions(sessions_pb2.ListDetectionSessionsRequest())
    assert [session.id for session in sessions.sessions] == [again.id, second.id, first.id]


async def test_what_a_photo_learns_reaches_asset_and_faces(
    detection: DetectionClient, running: Running, album: Album
) -> None:
    await detection.register({"photo": album.uri(1)})
    await running.worker(start_worker)
    await detection.wait_session((await detection.create_session(["photo"])).id)
    faces = await detection.list_faces(asset_id="photo")
    assert faces
    image = cv2.imread(str(album.path(1)))
    assert image is not None
    for face in faces:
        assert face.captured_at.time.seconds > 0
        assert face.origin == faces_pb2.FACE_ORIGIN_DETECTED
        assert face.model_version
        assert not face.person_id
        crop = await detection.faces.GetFaceCrop(
            faces_pb2.GetFaceCropRequest(face_id=face.id, size=64, square=True, format=faces_pb2.CROP_FORMAT_WEBP)
        )
        decoded = cv2.imdecode(np.frombuffer(crop.content, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert decoded.shape[:2] == (crop.height, crop.width)
        assert crop.width == crop.height <= 64
        assert crop.media_type == "image/webp"
        plain = await detection.faces.GetFaceCrop(faces_pb2.GetFaceCropRequest(face_id=face.id))
        decoded = cv2.imdecode(np.frombuffer(plain.content, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert decoded.shape[1] == plain.width
        assert plain.media_type == "image/jpeg"
        assert max(plain.width, plain.height) <= min(256, max(image.shape))
    batch = await detection.faces.BatchGetFaces(
        faces_pb2.BatchGetFacesRequest(
            face_ids=[face.id for face in faces] + ["00000000-0000-7000-8000-000000000000"], include_embeddings=True
        )
    )
    assert list(batch.faces) == faces
    assert list(batch.missing_ids) == ["00000000-0000-7000-8000-000000000000"]
    assert {len(batch.embeddings[face.id].values) for face in faces} == {len(batch.embeddings[faces[0].id].values)}
    assert (await detection.faces.GetFace(faces_pb2.GetFaceRequest(face_id=faces[0].id))).face == faces[0]


async def test_list_faces_pages_while_more_are_found(
    detection: DetectionClient, running: Running, album: Album
) -> None:
    await detection.register({f"a-{n}": album.uri(n) for n in range(4)})
    await running.worker(start_worker)
    await detection.wait_session((await detection.create_session()).id)
    first = await detection.list_faces()
    page = await detection.faces.ListFaces(faces_pb2.ListFacesRequest(page_size=2))
    seen = uuids(page.faces)
    await detection.register({f"b-{n}": album.uri(n) for n in range(4)})
    await detection.wait_session((await detection.create_session()).id)
    while page.next_page_token:
        page = await detection.faces.ListFaces(faces_pb2.ListFacesRequest(page_size=2, page_token=page.next_page_token))
        seen += uuids(page.faces)
    assert len(seen) == len(set(seen)) == 2 * len(first)
    assert seen == sorted(seen)
    token = (await detection.faces.ListFaces(faces_pb2.ListFacesRequest(page_size=2))).next_page_token
    with pytest.raises(InvalidRequest, match="page_token"):
        async with translate_errors("detection"):
            await detection.faces.ListFaces(faces_pb2.ListFacesRequest(page_token=token, unassigned=True))


async def test_sessions_over_nothing_are_refused(detection: DetectionClient, album: Album) -> None:
    await detection.register({"a": album.uri(0)})
    with pytest.raises(NotFound, match="'b'"):
        await detection.create_session(["a", "b", "c"])
    with pytest.raises(InvalidRequest, match="each id once"):
        await detection.create_session(["a", "a"])
    for prefix, complaint in (
        ("z", "no photo"),
        ("z" * 128, "no photo"),
        ("a" * 129, "filter.id_prefix"),
        ("a\x07", "filter.id_prefix"),
        ("a\x00", "filter.id_prefix"),
    ):
        with pytest.raises(InvalidRequest, match=complaint):
            async with translate_errors("detection"):
                await detection.sessions.CreateDetectionSession(
                    sessions_pb2.CreateDetectionSessionRequest(filter=sessions_pb2.AssetFilter(id_prefix=prefix))
                )


async def test_a_lost_index_is_told(
    detection: DetectionClient, running: Running, base: Foundation, album: Album
) -> None:
    await detection.register({"a": album.uri(1)})
    await running.worker(start_worker)
    await detection.wait_session((await detection.create_session()).id)
    await wait_relayed(base)
    faces = await detection.list_faces()
    version = faces[0].model_version
    await base.qdrant.delete(base.collections.faces(version), [faces[0].id], wait=True)
    check = await detection.check()
    assert not check.consistent
    drifts = [drift for report in check.collections for drift in report.drifts]
    assert [(drift.point_id, drift.kind) for drift in drifts] == [(faces[0].id, doctor_pb2.DRIFT_KIND_MISSING)]
    counts = await detection.doctor.CheckConsistency(doctor_pb2.CheckConsistencyRequest())
    assert not counts.consistent
    assert counts.collections[0].postgres_count == counts.collections[0].qdrant_count + 1


@pytest.mark.parametrize(("photos", "sizes"), [(4, [4]), (5, [4, 1]), (12, [4, 8]), (13, [4, 8, 1])])
async def test_the_first_slice_is_half_as_long_as_the_others(
    detection: DetectionClient, base: Foundation, album: Album, photos: int, sizes: list[int]
) -> None:
    await detection.register({f"photo-{n:02d}": album.uri(n) for n in range(photos)})
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection.model_copy(update={"session_slice": 8}))
    command = CreateSession("default", AssetFilter(), redetect=False, options=OptionOverrides())
    async with base.database.transaction() as tx:
        await create_session(tx, deps, command, Caller("tester", "test"))
        rows = await tx.rows(select(session_photos.c.slice).order_by(session_photos.c.asset_id))
        slices: int = await tx.scalar(select(func.count()).select_from(job_slices))
    assert [row.slice for row in rows] == [ordinal for ordinal, size in enumerate(sizes) for _ in range(size)]
    assert slices == len(sizes)
