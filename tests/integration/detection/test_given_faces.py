"""Faces whose place is known, over real gRPC: measured and embedded, not looked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import cv2
import numpy as np
import pytest

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2 as pb
from shared.errors import InvalidRequest
from shared.rpc.channel import translate_errors
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album

CROWDED = 1


async def measure(
    client: DetectionClient,
    image: types_pb2.Image,
    given: Sequence[pb.GivenFace],
    *,
    options: pb.DetectionOptions | None = None,
    include_embeddings: bool = True,
) -> pb.ImageFaces:
    request = pb.DetectFacesRequest(
        image=image, given_faces=given, options=options, include_embeddings=include_embeddings
    )
    async with translate_errors("detection"):
        return (await client.detection.DetectFaces(request)).result


@pytest.fixture
async def found(detection: DetectionClient, album: Album) -> pb.ImageFaces:
    """What the detector sees on the photo the tests give boxes of."""
    image = types_pb2.Image(uri=album.uri(CROWDED))
    request = pb.DetectFacesRequest(image=image, include_embeddings=True)
    return (await detection.detection.DetectFaces(request)).result


def give(face: pb.DetectedFace, given_id: str, *, landmarks: bool) -> pb.GivenFace:
    return pb.GivenFace(id=given_id, box=face.box, landmarks=face.landmarks if landmarks else None)


def cosine(left: pb.DetectedFace, right: pb.DetectedFace) -> float:
    return float(np.dot(left.embedding.values, right.embedding.values))


@pytest.mark.parametrize("landmarks", [True, False])
async def test_given_faces_come_back_in_order_as_the_detector_has_them(
    detection: DetectionClient, album: Album, found: pb.ImageFaces, landmarks: bool
) -> None:
    given = [give(face, f"mine {row}", landmarks=landmarks) for row, face in enumerate(found.faces)][::-1]
    assert len(given) >= 2
    image = types_pb2.Image(content=album.path(CROWDED).read_bytes())
    # Options for detecting do not apply: every given face is answered.
    measured = await measure(detection, image, given, options=pb.DetectionOptions(max_faces=1, min_quality=1.0))
    assert [face.given_id for face in measured.faces] == [face.id for face in given]
    assert measured.model_version == found.model_version
    for face, detected in zip(measured.faces, reversed(found.faces), strict=True):
        assert face.box == detected.box
        assert cosine(face, detected) >= (0.9999 if landmarks else 0.8)
        assert (face.confidence == 0.0) == landmarks
        assert face.quality.overall > 0


async def test_a_box_without_a_face_gets_estimated_points(detection: DetectionClient, found: pb.ImageFaces) -> None:
    flat = np.full((300, 400, 3), 120, np.uint8)
    content = cv2.imencode(".png", flat)[1].tobytes()
    box = types_pb2.BoundingBox(x=100, y=50, width=84, height=100)
    (face,) = (
        await measure(
            detection, types_pb2.Image(content=content), [pb.GivenFace(id="a", box=box)], include_embeddings=False
        )
    ).faces
    assert face.confidence == 0.0
    assert not face.HasField("embedding")
    assert face.box == box
    points = face.landmarks
    assert 100 < points.left_eye.x < points.nose.x < points.right_eye.x < 184
    assert 50 < points.left_eye.y < points.nose.y < points.left_mouth.y < 150


async def test_wrong_given_faces_are_named(detection: DetectionClient, album: Album) -> None:
    image = types_pb2.Image(uri=album.uri(CROWDED))
    box = types_pb2.BoundingBox(x=10, y=10, width=40, height=40)
    good = pb.GivenFace(id="good", box=box)
    nowhere = types_pb2.Landmarks(left_eye=types_pb2.Point(x=float("inf")))
    wrong = {
        "given_faces[1].id": pb.GivenFace(id="good", box=box),
        "given_faces[1].box": pb.GivenFace(id="b", box=types_pb2.BoundingBox(x=0, y=0, width=7, height=40)),
        "given_faces[1].landmarks": pb.GivenFace(id="b", box=box, landmarks=nowhere),
    }
    cases = [
        *wrong.items(),
        ("given_faces[1].id", pb.GivenFace(box=box)),
        ("given_faces[1].box", pb.GivenFace(id="b")),
        ("given_faces[1].box", pb.GivenFace(id="b", box=types_pb2.BoundingBox(x=float("nan"), width=40, height=40))),
        ("given_faces[1].box", pb.GivenFace(id="b", box=types_pb2.BoundingBox(x=90_000, y=1, width=40, height=40))),
        ("given_faces[1].landmarks", pb.GivenFace(id="b", box=box, landmarks=types_pb2.Landmarks())),
    ]
    for field, face in cases:
        with pytest.raises(InvalidRequest) as caught:
            await measure(detection, image, [good, face])
        assert [violation.field for violation in caught.value.violations] == [field]
    many = [pb.GivenFace(id=str(number), box=box) for number in range(501)]
    with pytest.raises(InvalidRequest) as caught:
        await measure(detection, image, many)
    assert caught.value.violations[0].field == "given_faces"


async def test_streams_take_given_faces_too(detection: DetectionClient, album: Album, found: pb.ImageFaces) -> None:
    given = [give(face, str(row), landmarks=False) for row, face in enumerate(found.faces)]
    outside = pb.GivenFace(id="away", box=types_pb2.BoundingBox(x=90_000, y=1, width=40, height=40))

    async def requests() -> AsyncIterator[pb.DetectStreamRequest]:
        image = types_pb2.Image(uri=album.uri(CROWDED))
        yield pb.DetectStreamRequest(sequence=1, image=image, given_faces=given, include_embeddings=True)
        yield pb.DetectStreamRequest(sequence=2, image=image, include_embeddings=True)
        yield pb.DetectStreamRequest(sequence=3, image=image, given_faces=[outside])

    replies = {reply.sequence: reply async for reply in detection.detection.DetectStream(requests())}
    assert [face.given_id for face in replies[1].result.faces] == [face.id for face in given]
    assert replies[2].result == found
    assert replies[3].failure.reason == "INVALID_FIELD"
