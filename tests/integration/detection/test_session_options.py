"""How a session looks is the caller's choice, and reaches the detector."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np

from kith.detection.v1 import sessions_pb2
from kith.detection.v1.detection_pb2 import DetectionOptions as Options
from services.detection.worker import start as start_worker
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album

FULL_SIZE = 1


async def run(client: DetectionClient, asset_id: str, options: Options | None = None) -> sessions_pb2.SessionPhoto:
    """What becomes of one photo in a session of its own."""
    request = sessions_pb2.CreateDetectionSessionRequest(redetect=True, options=options, request_id=str(uuid4()))
    request.assets.ids.append(asset_id)
    session = (await client.sessions.CreateDetectionSession(request)).session
    await client.wait_session(session.id)
    return (await client.outcomes(session.id))[asset_id]


async def test_options_of_a_session_reach_the_detector(
    detection: DetectionClient, running: Running, album: Album, tmp_path: Path
) -> None:
    photo = cv2.imread(str(album.path(FULL_SIZE)))
    assert photo is not None
    # Faces of some 60 pixels on a photo of 6000: too small for one look.
    small = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    canvas = np.full((4000, 6000, 3), 128, np.uint8)
    canvas[1700 : 1700 + small.shape[0], 2900 : 2900 + small.shape[1]] = small
    cv2.imwrite(str(tmp_path / "far.jpg"), canvas)
    await detection.register({"near": album.uri(FULL_SIZE), "far": (tmp_path / "far.jpg").as_uri()})
    await running.worker(start_worker)
    faces = (await run(detection, "near")).face_count
    assert faces >= 2
    for strict in (Options(min_quality=1.0), Options(min_face_px=5000.0), Options(min_confidence=1.0)):
        assert (await run(detection, "near", strict)).outcome == sessions_pb2.PHOTO_OUTCOME_NONE, strict
    assert (await run(detection, "near", Options(max_faces=1))).face_count == 1
    assert (await run(detection, "far")).outcome == sessions_pb2.PHOTO_OUTCOME_NONE
    assert (await run(detection, "far", Options(second_pass=True))).face_count >= 1
