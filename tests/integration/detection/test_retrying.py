"""Looking again at the photos that failed: which ones, how, and when not."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select

from kith.detection.v1 import assets_pb2, detection_pb2
from kith.detection.v1 import sessions_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from services.detection.worker import start as start_worker
from shared.db.tables_detection import detection_sessions
from shared.errors import InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album


@pytest.fixture
def unreadable(broken: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Broken files that a test may mend, by what is wrong with them."""
    return {name: Path(shutil.copy(path, tmp_path / path.name)) for name, path in broken.items()}


async def look(detection: DetectionClient, asset_ids: list[str] | None = None) -> pb.DetectionSession:
    """A session over these photos, or over all, at its end."""
    return await detection.wait_session((await detection.create_session(asset_ids)).id)


async def test_only_what_failed_and_still_fails_is_looked_at(
    detection: DetectionClient, running: Running, album: Album, unreadable: dict[str, Path]
) -> None:
    await detection.register({"good": album.uri(1)} | {name: path.as_uri() for name, path in unreadable.items()})
    await running.worker(start_worker)
    first = await look(detection)
    assert first.photos_failed == 4
    assert not first.retry_of

    shutil.copy(album.path(2), unreadable["empty"])
    # Meanwhile one is detected by another session, and one is gone.
    shutil.copy(album.path(3), unreadable["text"])
    await look(detection, ["text"])
    await detection.assets.DeleteAssets(assets_pb2.DeleteAssetsRequest(asset_ids=["huge"]))
    retried = await detection.retry_failed(first.id)
    assert (retried.retry_of, retried.photos, retried.photos_skipped) == (first.id, 3, 1)
    retried = await detection.wait_session(retried.id)

    assert retried.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    photos = await detection.outcomes(retried.id)
    assert {name: photo.outcome for name, photo in photos.items()} == {
        "corrupt": pb.PHOTO_OUTCOME_FAILED,
        "empty": pb.PHOTO_OUTCOME_FACES if photos["empty"].face_count else pb.PHOTO_OUTCOME_NONE,
        "text": pb.PHOTO_OUTCOME_SKIPPED,
    }
    assert set(await detection.outcomes(retried.id, pb.PHOTO_OUTCOME_FAILED)) == {"corrupt"}
    # The old session is history: it says what it saw.
    assert (await detection.get_session(first.id)).photos_failed == 4
    # And a retry can itself be retried.
    again = await detection.retry_failed(retried.id)
    assert (again.photos, again.photos_pending) == (1, 1)


async def test_a_retry_looks_as_the_first_session_did(
    detection: DetectionClient, running: Running, base: Foundation, unreadable: dict[str, Path]
) -> None:
    await detection.register({name: path.as_uri() for name, path in unreadable.items()})
    await running.worker(start_worker)
    options = detection_pb2.DetectionOptions(max_faces=3, min_quality=0.25)
    request = pb.CreateDetectionSessionRequest(redetect=True, options=options)
    request.filter.SetInParent()
    first = (await detection.sessions.CreateDetectionSession(request)).session
    await detection.wait_session(first.id)
    retried = await detection.retry_failed(first.id)
    assert retried.redetect
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(detection_sessions.c.options, detection_sessions.c.retry_of))
    assert [row.options for row in rows] == [{"max_faces": 3, "min_quality": 0.25}] * 2
    assert {str(row.retry_of) for row in rows} == {"None", first.id}


async def test_a_retry_is_made_once_per_request_id(
    detection: DetectionClient, running: Running, unreadable: dict[str, Path]
) -> None:
    await detection.register({"text": unreadable["text"].as_uri()})
    await running.worker(start_worker)
    first = await look(detection)
    request_id = str(uuid4())
    made = await detection.retry_failed(first.id, request_id)
    assert await detection.retry_failed(first.id, request_id) == made
    assert (await detection.retry_failed(first.id)).id != made.id


async def test_what_cannot_be_retried_is_refused(
    detection: DetectionClient, running: Running, album: Album, unreadable: dict[str, Path]
) -> None:
    await detection.register({"good": album.uri(1), "text": unreadable["text"].as_uri()})
    session = await detection.create_session()
    with pytest.raises(PreconditionFailed, match="has not ended") as refused:
        await detection.retry_failed(session.id)
    assert refused.value.reason is Reason.JOB_STATE
    assert refused.value.metadata == {"job_id": session.job.id, "state": "QUEUED"}
    with pytest.raises(NotFound):
        await detection.retry_failed(str(uuid4()))

    await running.worker(start_worker)
    await detection.wait_session(session.id)
    await detection.assets.DeleteAssets(assets_pb2.DeleteAssetsRequest(asset_ids=["text"]))
    with pytest.raises(InvalidRequest, match="no photo failed"):
        await detection.retry_failed(session.id)
    assert [made.id for made in await list_sessions(detection)] == [session.id]


async def list_sessions(detection: DetectionClient) -> list[pb.DetectionSession]:
    """The first page of sessions."""
    return list((await detection.sessions.ListDetectionSessions(pb.ListDetectionSessionsRequest())).sessions)
