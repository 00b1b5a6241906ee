"""Crops over real gRPC: from the photo or from memory, and gone with their face."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from kith.detection.v1 import assets_pb2, faces_pb2
from shared.errors import InvalidRequest, KithError, NotFound, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.known import look


@pytest.fixture
def photo(tmp_path: Path, album: Album) -> Path:
    """A photo that a test may take away."""
    copy = tmp_path / "photo.jpg"
    shutil.copy(album.path(1), copy)
    return copy


@pytest.fixture
async def face(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, photo: Path
) -> faces_pb2.Face:
    await detection.register({"photo": photo.as_uri()})
    await look(detection, running, base, stack)
    return (await detection.list_faces())[0]


async def crop(detection: DetectionClient, face_id: str, **fields: object) -> faces_pb2.GetFaceCropResponse:
    async with translate_errors("detection"):
        return await detection.faces.GetFaceCrop(faces_pb2.GetFaceCropRequest(face_id=face_id, **fields))  # type: ignore[arg-type]


async def test_a_crop_shows_the_face_in_the_style_asked_for(
    face: faces_pb2.Face, detection: DetectionClient, photo: Path
) -> None:
    whole = cv2.imread(str(photo))
    assert whole is not None
    plain = await crop(detection, face.id, margin=0.0, size=1024)
    assert (plain.width, plain.height) == pytest.approx((face.box.width, face.box.height), abs=2)
    x, y = round(face.box.x), round(face.box.y)
    seen = cv2.imdecode(np.frombuffer(plain.content, np.uint8), cv2.IMREAD_COLOR)
    assert seen is not None
    shown = whole[y : y + plain.height, x : x + plain.width]
    assert np.abs(seen.astype(int) - shown.astype(int)).mean() < 8
    wide = await crop(detection, face.id, margin=1.0, size=1024)
    assert wide.width > plain.width
    small = await crop(detection, face.id, size=16, square=True)
    assert (small.width, small.height) == (16, 16)
    assert (await crop(detection, face.id, format=faces_pb2.CROP_FORMAT_WEBP)).media_type == "image/webp"


async def test_a_crop_is_kept_while_its_photo_is_away_and_no_longer_than_its_face(
    face: faces_pb2.Face, detection: DetectionClient, photo: Path
) -> None:
    first = await crop(detection, face.id)
    os.remove(photo)
    assert await crop(detection, face.id) == first
    # What was not asked for before has to be read.
    with pytest.raises(KithError) as caught:
        await crop(detection, face.id, size=64)
    assert caught.value.reason is Reason.URI_UNREADABLE
    await detection.assets.DeleteAssets(assets_pb2.DeleteAssetsRequest(asset_ids=["photo"]))
    with pytest.raises(NotFound, match="face"):
        await crop(detection, face.id)


async def test_a_photo_registered_anew_is_read_anew(
    face: faces_pb2.Face, detection: DetectionClient, photo: Path
) -> None:
    first = await crop(detection, face.id)
    cv2.imwrite(str(photo), np.full_like(cv2.imread(str(photo)), 200))
    await detection.register({"photo": photo.as_uri()})
    assert (await crop(detection, face.id)).content != first.content


async def test_calls_at_one_moment_get_the_same(face: faces_pb2.Face, detection: DetectionClient) -> None:
    answers = await asyncio.gather(*(crop(detection, face.id, size=200) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)


async def test_styles_that_do_not_exist(face: faces_pb2.Face, detection: DetectionClient) -> None:
    wrong: dict[str, dict[str, object]] = {
        "size": {"size": 15},
        "margin": {"margin": 2.5},
        "format": {"format": 9},
    }
    for field, fields in wrong.items():
        with pytest.raises(InvalidRequest) as caught:
            await crop(detection, face.id, **fields)
        assert [violation.field for violation in caught.value.violations] == [field]
    with pytest.raises(NotFound, match="face"):
        await crop(detection, face.id, library_id="other")
