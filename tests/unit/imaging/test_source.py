"""Photo bytes from the request or from below an allowed folder, and from nowhere else."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.config import ImageSettings
from shared.errors import ImageUnreadable, InvalidRequest, Reason
from shared.imaging.source import PhotoReader, PhotoSource


def read(source: PhotoSource, root: Path, max_bytes: int = 1000) -> bytes:
    settings = ImageSettings(roots=(root.as_uri(),), max_bytes=max_bytes, max_content_bytes=max_bytes)

    async def run() -> bytes:
        with ThreadPoolExecutor(1) as pool:
            return await PhotoReader(pool, settings).read(source)

    return asyncio.run(run())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "2021").mkdir(parents=True)
    (folder / "2021" / "a photo.jpg").write_bytes(b"pixels")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "photos_of_others").mkdir()
    (tmp_path / "photos_of_others" / "b.jpg").write_bytes(b"theirs")
    return folder


def test_content_is_given_back(root: Path) -> None:
    assert read(PhotoSource(content=b"bytes"), root) == b"bytes"


def test_files_below_a_root_are_read(root: Path) -> None:
    assert read(PhotoSource(uri=f"file://{root}/2021/a%20photo.jpg"), root) == b"pixels"
    assert read(PhotoSource(uri=f"file://localhost{root}/2021/../2021/a%20photo.jpg"), root) == b"pixels"


def test_a_link_inside_the_root_is_followed_one_that_leaves_it_is_refused(root: Path) -> None:
    (root / "inside.jpg").symlink_to(root / "2021" / "a photo.jpg")
    (root / "outside.jpg").symlink_to(root.parent / "secret")
    (root / "folder").symlink_to(root.parent / "photos_of_others")
    assert read(PhotoSource(uri=f"file://{root}/inside.jpg"), root) == b"pixels"
    for escape in ("outside.jpg", "folder/b.jpg"):
        with pytest.raises(InvalidRequest) as refused:
            read(PhotoSource(uri=f"file://{root}/{escape}"), root)
        assert refused.value.reason is Reason.URI_NOT_ALLOWED


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "_of_others/b.jpg",
        "/../../../../../../etc/passwd",
        "/2021/../../absent",
        "/a%00.jpg",
    ],
)
def test_escapes_are_refused(root: Path, path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(PhotoSource(uri=f"file://{root}{path}"), root)
    assert refused.value.reason is Reason.URI_NOT_ALLOWED


@pytest.mark.parametrize(
    "uri",
    [
        "https://photos.example/a.jpg",
        "s3://bucket/a.jpg",
        "gs://bucket/a.jpg",
        "ftp://host/a.jpg",
        "a.jpg",
        "",
        "file:a.jpg",
        "file://otherhost/a.jpg",
        "http://[broken",
    ],
)
def test_other_schemes_and_hosts_are_refused_with_what_is_allowed(root: Path, uri: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(PhotoSource(uri=uri), root)
    assert refused.value.reason is Reason.URI_NOT_ALLOWED
    assert refused.value.metadata == {"uri": uri, "allowed": "file (1 folders)"}


def test_nothing_is_allowed_without_roots(root: Path) -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            await PhotoReader(pool, ImageSettings()).read(PhotoSource(uri=f"file://{root}/2021/a%20photo.jpg"))

    with pytest.raises(InvalidRequest, match="allowed: none"):
        asyncio.run(run())


def test_what_cannot_be_read_says_so(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to(root / "loop")
    for path in ("absent.jpg", "2021", "pipe", "loop"):
        with pytest.raises(InvalidRequest) as refused:
            read(PhotoSource(uri=f"file://{root}/{path}"), root)
        assert refused.value.reason is Reason.URI_UNREADABLE


def test_too_many_bytes_are_refused(root: Path) -> None:
    (root / "big.jpg").write_bytes(b"x" * 1001)
    for source in (PhotoSource(uri=f"file://{root}/big.jpg"), PhotoSource(content=b"x" * 1001)):
        with pytest.raises(ImageUnreadable) as refused:
            read(source, root)
        assert refused.value.reason is Reason.IMAGE_TOO_LARGE
        assert refused.value.metadata == {"bytes": "1001", "max_bytes": "1000"}


def test_exactly_one_origin() -> None:
    with pytest.raises(InvalidRequest):
        PhotoSource()
    with pytest.raises(InvalidRequest):
        PhotoSource(content=b"x", uri="file:///a.jpg")
