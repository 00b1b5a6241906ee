"""Photos by uri from every kind of root, through a real detection server: files, an S3, and a web server with TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2, sessions_pb2
from kith.detection.v1 import detection_pb2 as pb
from services.detection.server import start
from services.detection.worker import start as start_worker
from shared.config import Settings
from shared.errors import InvalidRequest, Reason
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.unit.imaging.web import Authority, Page, Web, make_authority, serve_web


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def web(authority: Authority, album: Album) -> Iterator[Web]:
    """A web server with the album's second photo, and much that is none."""
    with serve_web(authority.certificate) as served:
        served.pages |= {
            "/album/good.jpg": Page(album.path(1).read_bytes()),
            "/album/forbidden.jpg": Page(status=403),
            "/album/away.jpg": Page(status=302, headers={"Location": f"{served.base}/secret.jpg"}),
            "/album/endless.jpg": Page(endless=True),
            "/album/page.jpg": Page(b"<html>not found, but politely</html>"),
            "/secret.jpg": Page(album.path(1).read_bytes()),
        }
        yield served


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, album: Album) -> Iterator[str]:
    """The endpoint of an S3 with the album's second photo below ``album/photos/``."""
    for name, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret word")):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="album")
    client.put_object(Bucket="album", Key="photos/2021/a b.jpg", Body=album.path(1).read_bytes())
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def settings(settings: Settings, web: Web, bucket: str, authority: Authority) -> Settings:
    """Settings with these roots besides the folders."""
    images = settings.images.model_dump() | {
        "roots": [*settings.images.roots, "s3://album/photos/", f"{web.base}/album/"],
        "stores": {
            "s3://album/photos/": {"endpoint": bucket, "allow_http": True},
            f"{web.base}/album/": {"ca_file": authority.ca_file},
        },
        "max_bytes": 2_000_000,
    }
    return settings.model_copy(update={"images": type(settings.images).model_validate(images)})


async def detect(client: DetectionClient, uri: str) -> pb.ImageFaces:
    request = pb.DetectFacesRequest(image=types_pb2.Image(uri=uri), include_embeddings=True)
    async with translate_errors("detection"):
        return (await client.detection.DetectFaces(request)).result


async def test_the_same_photo_from_everywhere(detection: DetectionClient, album: Album, web: Web) -> None:
    from_file = await detect(detection, album.uri(1))
    assert from_file.faces
    assert await detect(detection, "s3://album/photos/2021/a%20b.jpg") == from_file
    assert await detect(detection, f"{web.base}/album/good.jpg") == from_file
    assert await detect(detection, f"{web.base}/album/go%6Fd.jpg") == from_file


async def test_what_cannot_be_read_says_why(detection: DetectionClient, web: Web) -> None:
    refusals = {
        f"{web.base}/album/absent.jpg": (Reason.URI_UNREADABLE, "nothing"),
        f"{web.base}/album/forbidden.jpg": (Reason.URI_UNREADABLE, "denies access"),
        f"{web.base}/album/away.jpg": (Reason.URI_UNREADABLE, "redirects are not followed"),
        f"{web.base}/album/endless.jpg": (Reason.IMAGE_TOO_LARGE, "more than 2000000"),
        f"{web.base}/album/page.jpg": (Reason.IMAGE_UNREADABLE, "not an image"),
        f"{web.base}/secret.jpg": (Reason.URI_NOT_ALLOWED, "not below an allowed root"),
        f"{web.base}/album/%2e%2e/secret.jpg": (Reason.URI_NOT_ALLOWED, "dotted"),
        "https://169.254.169.254/latest/meta-data": (Reason.URI_NOT_ALLOWED, "not below an allowed root"),
        "http://127.0.0.1/a.jpg": (Reason.URI_NOT_ALLOWED, "scheme 'http'"),
        "s3://album/photos/absent.jpg": (Reason.URI_UNREADABLE, "nothing"),
        "s3://album/secret.jpg": (Reason.URI_NOT_ALLOWED, "not below an allowed root"),
        "gs://album/photos/a.jpg": (Reason.URI_NOT_ALLOWED, "scheme 'gs'"),
    }
    for uri, (reason, words) in refusals.items():
        with pytest.raises(InvalidRequest) as caught:
            await detect(detection, uri)
        assert caught.value.reason is reason, uri
        assert words in caught.value.message
    assert "/secret.jpg" not in web.requests


async def test_registering_asks_no_server(detection: DetectionClient, web: Web) -> None:
    uris = {"good": f"{web.base}/album/good.jpg", "absent": f"{web.base}/album/absent.jpg"}
    assert (await detection.register(uris | {"s3": "s3://album/photos/absent.jpg"})).created_count == 3
    assert web.requests == []
    for uri in (f"{web.base}/secret.jpg", "s3://others/a.jpg", "https://169.254.169.254/"):
        with pytest.raises(InvalidRequest) as caught:
            await detection.register({"wrong": uri})
        assert caught.value.reason is Reason.URI_NOT_ALLOWED
        assert [violation.field for violation in caught.value.violations] == ["assets[0].uri"]


async def test_a_caller_with_our_retry_policy_waits_for_a_store_in_trouble(
    detection: DetectionClient, web: Web, album: Album
) -> None:
    web.pages["/album/shaky.jpg"] = Page(album.path(1).read_bytes(), failures=4)
    assert await detect(detection, f"{web.base}/album/shaky.jpg") == await detect(detection, album.uri(1))
    # Three times by the server, which then answers UNAVAILABLE, and twice at the next call of the client.
    assert len(web.requests) == 5


async def test_a_store_in_trouble_fails_its_photo_and_a_retry_reads_it(
    detection: DetectionClient, running: Running, web: Web, album: Album
) -> None:
    shaky = f"{web.base}/album/shaky.jpg"
    web.pages["/album/shaky.jpg"] = Page(album.path(1).read_bytes(), failures=3)
    await running.worker(start_worker)
    await detection.register({"good": f"{web.base}/album/good.jpg", "shaky": shaky, "file": album.uri(2)})
    session = await detection.wait_session((await detection.create_session()).id)
    outcomes = await detection.outcomes(session.id)
    assert outcomes["shaky"].failure.reason == "URI_UNREADABLE"
    assert "cannot be read now: the server fails (503)" in outcomes["shaky"].failure.message
    assert not outcomes["good"].HasField("failure")
    assert not outcomes["file"].HasField("failure")
    retry = sessions_pb2.RetryFailedPhotosRequest(session_id=session.id, request_id=str(uuid4()))
    again = await detection.wait_session((await detection.sessions.RetryFailedPhotos(retry)).session.id)
    outcomes = await detection.outcomes(again.id)
    assert outcomes["shaky"].outcome == sessions_pb2.PHOTO_OUTCOME_FACES
    asset = (await detection.assets.GetAsset(assets_pb2.GetAssetRequest(asset_id="shaky"))).asset
    assert asset.detection == assets_pb2.ASSET_DETECTION_FACES


async def test_a_server_does_not_start_with_a_certificate_that_is_not_there(
    running: Running, tmp_path: Path, web: Web
) -> None:
    root = f"{web.base}/album/"
    store = running.settings.images.stores[root].model_copy(update={"ca_file": tmp_path / "absent.pem"})
    images = running.settings.images.model_copy(update={"stores": {root: store}})
    running.settings = running.settings.model_copy(update={"images": images})
    with pytest.raises(FileNotFoundError):
        await running.server("detection", start)
