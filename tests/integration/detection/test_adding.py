"""Boxes drawn by hand, over real gRPC: stored, found again by detection, and never moved by it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import insert, select, update

from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2, detection_pb2, faces_pb2
from services.detection.inference.faces import ModelInfo
from shared.db.tables_detection import models
from shared.errors import AlreadyExists, InvalidRequest, KithError, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.known import add_face, get_asset, look, look_at_album, read_vectors, set_state


async def detect(detection: DetectionClient, uri: str) -> list[detection_pb2.DetectedFace]:
    """What detection sees on a photo, without storing it."""
    request = detection_pb2.DetectFacesRequest(image=types_pb2.Image(uri=uri), include_embeddings=True)
    return list((await detection.detection.DetectFaces(request)).result.faces)


def box(x: float, y: float, width: float, height: float) -> types_pb2.BoundingBox:
    return types_pb2.BoundingBox(x=x, y=y, width=width, height=height)


def moved(from_box: types_pb2.BoundingBox, by: float) -> types_pb2.BoundingBox:
    return box(from_box.x + by, from_box.y + by, from_box.width, from_box.height)


async def test_a_drawn_face_is_stored_and_known_to_later_detection(
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
    album: Album,
    pack: ModelInfo,
) -> None:
    await detection.register({"photo": album.uri(1)})
    seen = (await detect(detection, album.uri(1)))[0]
    drawn = moved(seen.box, 2)
    request_id = str(uuid4())
    face = await add_face(detection, "photo", drawn, request_id)
    assert face.origin == faces_pb2.FACE_ORIGIN_MANUAL
    assert face.state == faces_pb2.FACE_STATE_ACTIVE
    assert (face.box, face.confidence, face.model_version) == (drawn, 0, pack.version)
    assert face.quality.overall > 0
    assert face.captured_at.time.seconds > 0
    (vector,) = await read_vectors(detection, [face.id])
    assert float(vector @ np.array(seen.embedding.values)) > 0.9
    asset = await get_asset(detection, "photo")
    assert (asset.face_count, asset.detection) == (1, assets_pb2.ASSET_DETECTION_NEVER)
    assert min(asset.width, asset.height, asset.orientation, asset.difference_hash) > 0

    assert await add_face(detection, "photo", drawn, request_id) == face
    assert await detection.list_faces() == [face]

    found = len(await detect(detection, album.uri(1)))
    session = await look(detection, running, base, stack)
    assert (session.faces_added, session.faces_kept, session.faces_gone) == (found - 1, 1, 0)
    assert next(each for each in await detection.list_faces() if each.id == face.id) == face
    assert (await get_asset(detection, "photo")).face_count == found
    assert (await detection.check()).consistent


async def test_a_box_where_detection_sees_nothing_outlives_redetection(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    faces = await look_at_album(detection, running, base, stack, album, 1)
    drawn = await add_face(detection, "photo-0", box(0, 0, 20, 24))
    session = await look(detection, running, base, stack, redetect=True)
    assert (session.faces_added, session.faces_kept, session.faces_gone) == (0, len(faces), 1)
    assert await detection.list_faces() == [*faces, drawn]
    assert (await get_asset(detection, "photo-0")).face_count == len(faces) + 1


async def test_a_box_on_a_stored_face_is_refused_with_its_id(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    face = (await look_at_album(detection, running, base, stack, album, 2))[0]
    with pytest.raises(AlreadyExists) as caught:
        await add_face(detection, face.asset_id, moved(face.box, 1))
    assert caught.value.reason is Reason.RESOURCE_EXISTS
    assert caught.value.metadata == {"resource": "face", "id": face.id}
    await set_state(detection, face.id, faces_pb2.FACE_STATE_NOT_A_FACE)
    with pytest.raises(AlreadyExists, match="NOT_A_FACE; UpdateFace") as caught:
        await add_face(detection, face.asset_id, face.box)
    assert caught.value.metadata["id"] == face.id


async def test_of_two_who_draw_the_same_box_one_adds_it(
    detection: DetectionClient, base: Foundation, album: Album
) -> None:
    await detection.register({"photo": album.uri(1)})
    drawn = box(10, 10, 40, 40)
    answers = await asyncio.gather(
        *(add_face(detection, "photo", moved(drawn, shift)) for shift in range(3)), return_exceptions=True
    )
    added = [answer for answer in answers if isinstance(answer, faces_pb2.Face)]
    assert len(added) == 1
    assert await detection.list_faces() == added
    assert [answer.metadata["id"] for answer in answers if isinstance(answer, AlreadyExists)] == [added[0].id] * 2


@pytest.mark.parametrize("known", [False, True])
async def test_boxes_that_cannot_be_a_face_are_refused(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album, known: bool
) -> None:
    await detection.register({"photo": album.uri(1)})
    if known:
        await look(detection, running, base, stack)
    before = await detection.list_faces()
    nan = float("nan")
    for wrong in (box(0, 0, 7.9, 20), box(0, 0, 20, 0), box(-1, 0, 20, 20), box(9000, 0, 20, 20), box(0, 0, 9000, 20)):
        with pytest.raises(InvalidRequest) as caught:
            await add_face(detection, "photo", wrong)
        assert [violation.field for violation in caught.value.violations] == ["box"]
    for wrong in (box(nan, 0, 20, 20), box(0, 0, nan, 20), box(0, 0, float("inf"), 20)):
        with pytest.raises(InvalidRequest, match="finite"):
            await add_face(detection, "photo", wrong)
    assert await detection.list_faces() == before


async def test_whole_photo_is_inside_itself(detection: DetectionClient, album: Album) -> None:
    await detection.register({"photo": album.uri(1)})
    request = detection_pb2.DetectFacesRequest(image=types_pb2.Image(uri=album.uri(1)))
    size = (await detection.detection.DetectFaces(request)).result
    face = await add_face(detection, "photo", box(0.1, 0.1, size.width - 0.1, size.height - 0.1))
    assert face.box.width == pytest.approx(size.width - 0.1, abs=0.01)


async def test_photos_that_are_not_there_or_cannot_be_read(detection: DetectionClient, album: Album) -> None:
    with pytest.raises(NotFound, match="'photo'"):
        await add_face(detection, "photo", box(0, 0, 20, 20))
    gone = album.folder / "gone.jpg"
    await detection.register({"photo": gone.as_uri()})
    with pytest.raises(KithError) as caught:
        await add_face(detection, "photo", box(0, 0, 20, 20))
    assert caught.value.reason is Reason.URI_UNREADABLE
    assert (await get_asset(detection, "photo")).width == 0


async def test_no_face_is_added_under_another_model(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album, pack: ModelInfo
) -> None:
    faces = await look_at_album(detection, running, base, stack, album, 1)
    async with base.database.transaction() as tx:
        (row,) = await tx.rows(select(models))
        await tx.execute(update(models).values(state="RETIRED"))
        await tx.execute(insert(models), {**row._mapping, "model_version": "another_model", "state": "ACTIVE"})
    with pytest.raises(PreconditionFailed) as caught:
        await add_face(detection, "photo-0", box(0, 0, 20, 20))
    assert caught.value.reason is Reason.MODEL_MISMATCH
    assert caught.value.metadata == {"expected": "another_model", "actual": pack.version}
    assert len(await detection.list_faces()) == len(faces)
