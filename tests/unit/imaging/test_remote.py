"""Photos from real servers on real sockets: an S3 and web servers with and without TLS, well and badly behaved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from shared.config import ImageSettings, PhotoStoreSettings
from shared.errors import Code, ImageUnreadable, InvalidRequest, KithError, Reason, Unavailable
from shared.imaging.source import PhotoReader, PhotoSource
from tests.unit.imaging.web import Authority, Page, Web, make_authority, serve_web

LIMIT = 100_000


def read(uri: str, root: str, *, timeout_s: float = 20, **options: object) -> bytes:
    """Read one photo by a reader of its own; ``options`` are of the root's store."""
    settings = ImageSettings(
        roots=(root,),
        stores={root: PhotoStoreSettings.model_validate(options)} if options else {},
        max_bytes=LIMIT,
        read_timeout_s=timeout_s,
    )

    async def run() -> bytes:
        with ThreadPoolExecutor(1) as pool:
            reader = PhotoReader(pool, settings)
            try:
                return await reader.read(PhotoSource(uri=uri))
            finally:
                await reader.close()

    return asyncio.run(run())


def failure_of(uri: str, root: str, *, timeout_s: float = 20, **options: object) -> KithError:
    with pytest.raises(KithError) as refused:
        read(uri, root, timeout_s=timeout_s, **options)
    return refused.value


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def web() -> Iterator[Web]:
    with serve_web() as served:
        yield served


class TestWeb:
    def test_a_photo_over_tls_of_an_own_authority(self, authority: Authority) -> None:
        with serve_web(authority.certificate) as web:
            web.pages["/library/a%20%25%C3%A4.jpg"] = Page(b"pixels")
            root = f"{web.base}/library/"
            assert read(f"{root}a%20%25ä.jpg", root, ca_file=authority.ca_file) == b"pixels"
            stranger = failure_of(f"{root}a%20%25ä.jpg", root)
            assert isinstance(stranger, Unavailable)
            assert stranger.reason is Reason.URI_UNREADABLE
            assert web.requests == ["/library/a%20%25%C3%A4.jpg"]

    @pytest.mark.parametrize(
        ("status", "words"),
        [(404, "nothing"), (410, "nothing"), (401, "denies"), (403, "denies"), (400, "refuses"), (206, "refuses")],
    )
    def test_what_stays_wrong_is_asked_for_once(self, web: Web, status: int, words: str) -> None:
        web.pages["/a.jpg"] = Page(b"a page about it", status)
        error = failure_of(f"{web.base}/a.jpg", f"{web.base}/")
        assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, Reason.URI_UNREADABLE)
        assert words in error.message
        assert error.metadata == {"uri": f"{web.base}/a.jpg"}
        assert len(web.requests) == 1

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    def test_trouble_that_passes_is_waited_for(self, web: Web, status: int) -> None:
        web.pages["/a.jpg"] = Page(b"pixels", failure=status, failures=2)
        assert read(f"{web.base}/a.jpg", f"{web.base}/") == b"pixels"
        assert len(web.requests) == 3

    def test_trouble_that_stays_can_be_told_from_a_wrong_uri(self, web: Web) -> None:
        web.pages["/a.jpg"] = Page(failures=9)
        error = failure_of(f"{web.base}/a.jpg", f"{web.base}/")
        assert (error.code, error.reason) == (Code.UNAVAILABLE, Reason.URI_UNREADABLE)
        assert "cannot be read now: the server fails (503)" in error.message
        assert len(web.requests) == 3

    def test_nobody_there(self) -> None:
        error = failure_of("http://127.0.0.1:1/a.jpg", "http://127.0.0.1:1/")
        assert (error.code, error.reason) == (Code.UNAVAILABLE, Reason.URI_UNREADABLE)

    def test_a_body_that_breaks_off_is_no_photo(self, web: Web) -> None:
        web.pages["/a.jpg"] = Page(b"pixels" * 100, breaks_off=True)
        assert isinstance(failure_of(f"{web.base}/a.jpg", f"{web.base}/"), Unavailable)

    @pytest.mark.parametrize("target", ["/elsewhere", "/library/b.jpg", "{other}/secret"])
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed(self, web: Web, status: int, target: str) -> None:
        with serve_web() as other:
            other.pages["/secret"] = Page(b"secret")
            for path in ("/elsewhere", "/library/b.jpg"):
                web.pages[path] = Page(b"secret")
            location = target.format(other=other.base)
            web.pages["/library/a.jpg"] = Page(status=status, headers={"Location": location})
            error = failure_of(f"{web.base}/library/a.jpg", f"{web.base}/library")
            assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, Reason.URI_UNREADABLE)
            assert "redirects are not followed" in error.message
            assert other.requests == []
            assert web.requests == ["/library/a.jpg"]

    def test_too_large_by_its_own_word_is_not_read(self, web: Web) -> None:
        web.pages["/a.jpg"] = Page(b"x" * (LIMIT + 1))
        error = failure_of(f"{web.base}/a.jpg", f"{web.base}/")
        assert isinstance(error, ImageUnreadable)
        assert error.reason is Reason.IMAGE_TOO_LARGE
        assert error.metadata == {"bytes": str(LIMIT + 1), "max_bytes": str(LIMIT)}

    def test_a_body_without_end_is_left_at_the_limit(self, web: Web) -> None:
        web.pages["/a.jpg"] = Page(endless=True)
        error = failure_of(f"{web.base}/a.jpg", f"{web.base}/")
        assert error.reason is Reason.IMAGE_TOO_LARGE
        assert LIMIT < int(error.metadata["bytes"]) < LIMIT + 512 * 1024
        # What lay in the sockets' buffers when we hung up, and no more.
        assert web.sent[0] < 32 * 2**20

    def test_a_compressed_body_is_refused(self, web: Web) -> None:
        web.pages["/a.jpg"] = Page(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
        assert "compressed" in failure_of(f"{web.base}/a.jpg", f"{web.base}/").message

    def test_silence_has_an_end(self, web: Web) -> None:
        web.pages["/a.jpg"] = Page(silent=True)
        began = time.monotonic()
        error = failure_of(f"{web.base}/a.jpg", f"{web.base}/", timeout_s=0.3)
        assert (error.code, error.reason) == (Code.UNAVAILABLE, Reason.URI_UNREADABLE)
        assert "longer than 0.3 s" in error.message
        assert time.monotonic() - began < 10


class TestBucket:
    @pytest.fixture(scope="class")
    @classmethod
    def endpoint(cls) -> Iterator[str]:
        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret word",
        )
        client.create_bucket(Bucket="album")
        client.put_object(Bucket="album", Key="photos/a b%20ä.jpg", Body=b"pixels")
        client.put_object(Bucket="album", Key="photos/large.jpg", Body=b"x" * (LIMIT + 1))
        client.put_object(Bucket="album", Key="private.jpg", Body=b"private")
        client.put_object(Bucket="album", Key="public.jpg", Body=b"public", ACL="public-read")
        yield f"http://{host}:{port}"
        server.stop()

    @pytest.fixture(autouse=True)
    def credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret word")

    def test_a_photo(self, endpoint: str) -> None:
        root = "s3://album/photos/"
        assert read(f"{root}a%20b%2520ä.jpg", root, endpoint=endpoint, allow_http=True) == b"pixels"

    def test_an_anonymous_reader_reads_what_is_public(self, endpoint: str) -> None:
        root = "s3://album/"
        assert read(f"{root}public.jpg", root, endpoint=endpoint, allow_http=True, anonymous=True) == b"public"
        error = failure_of(f"{root}private.jpg", root, endpoint=endpoint, allow_http=True, anonymous=True)
        assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, Reason.URI_UNREADABLE)
        assert "denies access" in error.message

    def test_endpoint_and_region_from_the_environment(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        assert read("s3://album/photos/a%20b%2520ä.jpg", "s3://album/photos", allow_http=True) == b"pixels"

    def test_a_key_with_marks_of_a_uri_reaches_the_server_whole(self, web: Web) -> None:
        error = failure_of("s3://album/a%3Fb%23c%25.jpg", "s3://album/", endpoint=web.base, allow_http=True)
        assert "there is nothing" in error.message
        assert web.requests == ["/album/a%3Fb%23c%25.jpg"]

    def test_what_is_not_there(self, endpoint: str) -> None:
        for uri, root in (
            ("s3://album/photos/absent.jpg", "s3://album/photos/"),
            ("s3://nobody/a.jpg", "s3://nobody/"),
        ):
            error = failure_of(uri, root, endpoint=endpoint, allow_http=True)
            assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, Reason.URI_UNREADABLE)
            assert "there is nothing" in error.message

    def test_too_large(self, endpoint: str) -> None:
        error = failure_of("s3://album/photos/large.jpg", "s3://album/photos/", endpoint=endpoint, allow_http=True)
        assert error.reason is Reason.IMAGE_TOO_LARGE
        assert error.metadata == {"bytes": str(LIMIT + 1), "max_bytes": str(LIMIT)}

    def test_outside_the_prefix(self, endpoint: str) -> None:
        error = failure_of("s3://album/private.jpg", "s3://album/photos/", endpoint=endpoint, allow_http=True)
        assert isinstance(error, InvalidRequest)
        assert error.reason is Reason.URI_NOT_ALLOWED

    def test_without_tls_only_where_it_is_allowed(self, endpoint: str) -> None:
        assert failure_of("s3://album/photos/a.jpg", "s3://album/photos/", endpoint=endpoint).code is Code.UNAVAILABLE

    @pytest.mark.parametrize(
        ("page", "code", "asked"),
        [
            (Page(status=403), Code.INVALID_ARGUMENT, 1),
            (Page(status=401), Code.INVALID_ARGUMENT, 1),
            (Page(status=400), Code.INVALID_ARGUMENT, 1),
            (Page(failures=9), Code.UNAVAILABLE, 3),
            (Page(failures=9, failure=500), Code.UNAVAILABLE, 3),
        ],
    )
    def test_refusals_and_trouble(self, web: Web, page: Page, code: Code, asked: int) -> None:
        page.body = b"<Error><AWSAccessKeyId>key</AWSAccessKeyId><StringToSign>secret word</StringToSign></Error>"
        web.pages["/album/a.jpg"] = page
        error = failure_of("s3://album/a.jpg", "s3://album/", endpoint=web.base, allow_http=True)
        assert (error.code, error.reason) == (code, Reason.URI_UNREADABLE)
        assert "key" not in error.message
        assert "secret word" not in error.message
        assert len(web.requests) == asked

    def test_silence_and_nobody_there(self, web: Web) -> None:
        web.pages["/album/a.jpg"] = Page(silent=True)
        for endpoint in (web.base, "http://127.0.0.1:1"):
            error = failure_of("s3://album/a.jpg", "s3://album/", timeout_s=0.4, endpoint=endpoint, allow_http=True)
            assert (error.code, error.reason) == (Code.UNAVAILABLE, Reason.URI_UNREADABLE)

    def test_a_photo_of_google(self, web: Web) -> None:
        web.pages["/album/photos%2Fa%2Ejpg"] = Page(
            b"pixels", headers={"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "ETag": '"1"'}
        )
        root = "gs://album/photos/"
        assert read(f"{root}a.jpg", root, endpoint=web.base, allow_http=True, anonymous=True) == b"pixels"
        assert web.requests == ["/album/photos%2Fa%2Ejpg"]


def test_a_certificate_file_that_is_not_there_is_noticed_at_start(tmp_path: Path) -> None:
    for root in ("https://photos.example/", "s3://album/"):
        with pytest.raises(OSError, match="No such file"):
            read(f"{root}a.jpg", root, ca_file=tmp_path / "absent.pem")
