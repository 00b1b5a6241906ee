"""DetectionService over real gRPC, on a real pack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import pytest

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2 as pb
from services.detection.inference.faces import ModelInfo
from services.detection.server import start
from shared.config import Settings
from shared.errors import InvalidRequest, Reason, Unavailable
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album


async def detect(
    client: DetectionClient,
    image: types_pb2.Image,
    *,
    options: pb.DetectionOptions | None = None,
    include_embeddings: bool = False,
) -> pb.ImageFaces:
    request = pb.DetectFacesRequest(image=image, options=options, include_embeddings=include_embeddings)
    async with translate_errors("detection"):
        return (await client.detection.DetectFaces(request)).result


async def test_content_and_uri_give_the_same_faces(detection: DetectionClient, album: Album) -> None:
    by_content = await detect(detection, types_pb2.Image(content=album.path(1).read_bytes()), include_embeddings=True)
    by_uri = await detect(detection, types_pb2.Image(uri=album.uri(1)), include_embeddings=True)
    assert by_content == by_uri
    assert by_uri.faces
    confidences = [face.confidence for face in by_uri.faces]
    assert confidences == sorted(confidences, reverse=True)
    for face in by_uri.faces:
        assert face.box.width > 0
        assert face.box.x < by_uri.width
        assert face.embedding.model_version == by_uri.model_version
        assert sum(value * value for value in face.embedding.values) == pytest.approx(1, abs=1e-3)
        assert 0 < face.quality.overall <= 1


async def test_options_leave_faces_out(detection: DetectionClient, album: Album) -> None:
    image = types_pb2.Image(uri=album.uri(1))
    faces = (await detect(detection, image)).faces
    one = await detect(detection, image, options=pb.DetectionOptions(max_faces=1))
    assert list(one.faces) == list(faces[:1])
    assert not one.faces[0].HasField("embedding")
    side = max(min(face.box.width, face.box.height) for face in faces)
    assert not (await detect(detection, image, options=pb.DetectionOptions(min_face_px=side + 1))).faces


async def test_options_out_of_range_are_named(detection: DetectionClient, album: Album) -> None:
    wrong = {
        "options.min_confidence": pb.DetectionOptions(min_confidence=1.5),
        "options.min_quality": pb.DetectionOptions(min_quality=float("nan")),
        "options.min_face_px": pb.DetectionOptions(min_face_px=-1),
        "options.max_faces": pb.DetectionOptions(max_faces=501),
    }
    for field, options in wrong.items():
        with pytest.raises(InvalidRequest) as caught:
            await detect(detection, types_pb2.Image(uri=album.uri(0)), options=options)
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_unreadable_images_are_refused(detection: DetectionClient, broken: dict[str, Path]) -> None:
    reasons = dict.fromkeys(("corrupt", "empty", "text"), Reason.IMAGE_UNREADABLE) | {"huge": Reason.IMAGE_TOO_LARGE}
    for name, reason in reasons.items():
        content, uri = broken[name].read_bytes(), broken[name].as_uri()
        for image in (types_pb2.Image(content=content), types_pb2.Image(uri=uri)):
            with pytest.raises(InvalidRequest) as caught:
                await detect(detection, image)
            assert caught.value.reason is reason, name


async def test_images_from_nowhere_are_refused(detection: DetectionClient, tmp_path: Path) -> None:
    refusals = {
        "": Reason.URI_NOT_ALLOWED,
        "file:///etc/passwd": Reason.URI_NOT_ALLOWED,
        "ftp://example.org/photo.jpg": Reason.URI_NOT_ALLOWED,
        (tmp_path / "missing.jpg").as_uri(): Reason.URI_UNREADABLE,
    }
    for uri, reason in refusals.items():
        with pytest.raises(InvalidRequest) as caught:
            await detect(detection, types_pb2.Image(uri=uri))
        assert caught.value.reason is reason, uri
    with pytest.raises(InvalidRequest) as caught:
        await detect(detection, types_pb2.Image())
    assert caught.value.violations[0].field == "image"


async def test_stream_answers_each_photo_and_fails_them_in_band(
    detection: DetectionClient, album: Album, broken: dict[str, Path]
) -> None:
    uris = {number: album.uri(number) for number in range(1, 25)}
    uris |= {101: broken["text"].as_uri(), 102: broken["huge"].as_uri(), 103: "file:///etc/passwd"}
    replies = await stream(detection, uris)
    assert replies[0].max_in_flight == 16
    assert replies[0].sequence == 0
    by_sequence = {reply.sequence: reply for reply in replies[1:]}
    assert sorted(by_sequence) == sorted(uris)
    assert len(replies) == len(uris) + 1
    failures = {n: reply.failure for n, reply in by_sequence.items() if reply.WhichOneof("outcome") == "failure"}
    assert {n: failure.reason for n, failure in failures.items()} == {
        101: "IMAGE_UNREADABLE",
        102: "IMAGE_TOO_LARGE",
        103: "URI_NOT_ALLOWED",
    }
    assert all(failure.id == str(n) for n, failure in failures.items())
    alone = await detect(detection, types_pb2.Image(uri=album.uri(1)), include_embeddings=True)
    assert by_sequence[1].result == alone


async def stream(client: DetectionClient, uris: dict[int, str]) -> list[pb.DetectStreamResponse]:
    """Send everything at once, whatever the server said: what it does not want yet waits."""

    async def requests() -> AsyncIterator[pb.DetectStreamRequest]:
        for sequence, uri in uris.items():
            yield pb.DetectStreamRequest(sequence=sequence, image=types_pb2.Image(uri=uri), include_embeddings=True)

    return [reply async for reply in client.detection.DetectStream(requests())]


async def test_cancelled_stream_leaves_the_server_free(detection: DetectionClient, album: Album) -> None:
    async def requests() -> AsyncIterator[pb.DetectStreamRequest]:
        for sequence in range(1, 200):
            yield pb.DetectStreamRequest(sequence=sequence, image=types_pb2.Image(uri=album.uri(sequence)))
        await asyncio.Event().wait()

    call = detection.detection.DetectStream(requests())
    greeting, reply = await call.read(), await call.read()
    assert isinstance(greeting, pb.DetectStreamResponse)
    assert isinstance(reply, pb.DetectStreamResponse)
    assert greeting.max_in_flight
    assert reply.sequence
    call.cancel()
    assert (await stream(detection, {1: album.uri(1)}))[1].HasField("result")


async def test_a_stream_ends_early_when_the_server_stops(
    settings: Settings, base: Foundation, pack: ModelInfo, stack: AsyncExitStack, album: Album
) -> None:
    await base.collections.create_missing(pack.version, pack.dimension)
    server = await start(settings, stack)
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
    more = asyncio.Event()

    async def requests() -> AsyncIterator[pb.DetectStreamRequest]:
        for sequence in range(1, 9):
            yield pb.DetectStreamRequest(sequence=sequence, image=types_pb2.Image(uri=album.uri(sequence)))
        await more.wait()

    answered: list[int] = []
    stopping: list[asyncio.Task[None]] = []

    async def read() -> None:
        async with translate_errors("detection"):
            async for reply in DetectionClient(channel).detection.DetectStream(requests()):
                answered.append(reply.sequence)
                if len(answered) == 3:
                    stopping.append(asyncio.create_task(server.drain()))

    with pytest.raises(Unavailable) as caught:
        await read()
    assert caught.value.reason is Reason.DRAINING
    await asyncio.gather(*stopping)
    # The greeting, and each photo that was taken; the client knows by the sequence which to send elsewhere.
    assert 3 <= len(answered) == len(set(answered)) <= 9


async def test_model_info_describes_the_pack(detection: DetectionClient) -> None:
    info = (await detection.detection.GetModelInfo(pb.GetModelInfoRequest())).model
    assert info.dimension > 0
    assert info.model_version
    assert dict(info.providers) == dict.fromkeys(info.sha256, "CPUExecutionProvider")
    assert len(info.sha256) == 2
    assert all(len(digest) == 64 for digest in info.sha256.values())
    assert set(info.runtime) == {"insightface", "onnxruntime"}
