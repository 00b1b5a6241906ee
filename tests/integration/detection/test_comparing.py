"""CompareFaces over real gRPC: one to one, by the pack's own curve."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import pytest
from sqlalchemy import insert, select, update

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2, faces_pb2
from services.detection.inference.faces import ModelInfo
from shared.db.tables_detection import models
from shared.errors import InvalidRequest, KithError, NotFound, Reason
from shared.faces.calibration import ARCFACE_CALIBRATION, Calibration
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.known import look_at_album, read_vectors


def photo(uri: str) -> detection_pb2.FaceSource:
    return detection_pb2.FaceSource(image=types_pb2.Image(uri=uri))


def stored(face_id: str) -> detection_pb2.FaceSource:
    return detection_pb2.FaceSource(face_id=face_id)


async def compare(
    detection: DetectionClient, left: detection_pb2.FaceSource | None, right: detection_pb2.FaceSource | None
) -> detection_pb2.CompareFacesResponse:
    async with translate_errors("detection"):
        return await detection.detection.CompareFaces(detection_pb2.CompareFacesRequest(left=left, right=right))


@pytest.fixture
async def known(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> list[faces_pb2.Face]:
    return await look_at_album(detection, running, base, stack, album, 4)


async def test_stored_faces_by_the_curve_of_the_pack(
    known: list[faces_pb2.Face], detection: DetectionClient, pack: ModelInfo
) -> None:
    vectors = await read_vectors(detection, [face.id for face in known])
    curve = Calibration(pack.calibration["slope"], pack.calibration["intercept"])
    for row in range(1, len(known)):
        answer = await compare(detection, stored(known[0].id), stored(known[row].id))
        assert answer.cosine == pytest.approx(float(vectors[0] @ vectors[row]), abs=1e-5)
        assert answer.same_person == pytest.approx(curve.confidence(answer.cosine), abs=1e-5)
        assert (answer.left.box, answer.right.box) == (known[0].box, known[row].box)
        assert answer.right.quality == known[row].quality
        assert answer.right.landmarks == known[row].landmarks
    assert (await compare(detection, stored(known[0].id), stored(known[0].id))).cosine == pytest.approx(1)


async def test_the_largest_face_of_each_photo(
    known: list[faces_pb2.Face], detection: DetectionClient, album: Album
) -> None:
    largest = {
        name: max((face for face in known if face.asset_id == name), key=lambda face: face.box.width * face.box.height)
        for name in ("photo-0", "photo-1")
    }
    same = await compare(detection, photo(album.uri(1)), stored(largest["photo-1"].id))
    assert same.cosine > 0.999
    assert same.same_person > 0.9
    assert same.left.box == same.right.box
    mixed = await compare(detection, photo(album.uri(0)), stored(largest["photo-1"].id))
    both = await compare(detection, photo(album.uri(0)), photo(album.uri(1)))
    assert both.cosine == pytest.approx(mixed.cosine, abs=2e-3)
    assert both.left.box == largest["photo-0"].box


async def test_photos_need_no_library(detection: DetectionClient, album: Album) -> None:
    answer = await compare(detection, photo(album.uri(1)), photo(album.uri(1)))
    assert answer.cosine == pytest.approx(1, abs=1e-4)


async def test_a_model_without_a_curve_is_judged_as_arcface(
    known: list[faces_pb2.Face], detection: DetectionClient, base: Foundation
) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(update(models).values(calibration={}))
    answer = await compare(detection, stored(known[0].id), stored(known[1].id))
    assert answer.same_person == pytest.approx(ARCFACE_CALIBRATION.confidence(answer.cosine), abs=1e-5)


async def test_what_cannot_be_compared(
    known: list[faces_pb2.Face], detection: DetectionClient, album: Album, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((200, 200, 3), 128, np.uint8))
    good = photo(album.uri(0))
    wrong = {
        "left": (None, good),
        "right": (good, detection_pb2.FaceSource()),
        "right.image": (good, photo(empty.as_uri())),
        "left.image": (detection_pb2.FaceSource(image=types_pb2.Image()), good),
        "left.face_id": (stored("no id"), good),
    }
    for field, (left, right) in wrong.items():
        with pytest.raises(InvalidRequest) as caught:
            await compare(detection, left, right)
        assert [violation.field for violation in caught.value.violations] == [field]
    with pytest.raises(NotFound, match="face"):
        await compare(detection, good, stored(str(uuid4())))


async def test_a_photo_is_not_compared_with_a_face_of_another_model(
    known: list[faces_pb2.Face], detection: DetectionClient, base: Foundation, album: Album, pack: ModelInfo
) -> None:
    async with base.database.transaction() as tx:
        (row,) = await tx.rows(select(models))
        await tx.execute(update(models).values(state="RETIRED"))
        await tx.execute(insert(models), {**row._mapping, "model_version": "another_model", "state": "ACTIVE"})
    for left in (photo(album.uri(0)), stored(known[1].id)):
        with pytest.raises(KithError) as caught:
            await compare(detection, left, stored(known[0].id))
        assert caught.value.reason is Reason.MODEL_MISMATCH
    # Of two photos nothing is stored, so the library's model does not matter.
    assert (await compare(detection, photo(album.uri(0)), photo(album.uri(0)))).cosine == pytest.approx(1, abs=1e-4)
