"""Which uris may be read: what is below a root and nothing that only looks so."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.config import ImageSettings
from shared.errors import InvalidRequest, Reason
from shared.imaging.roots import PhotoRoots, RemotePhoto

ROOTS = PhotoRoots(
    [
        "s3://bucket/photos/",
        "s3://bucket/photos/private",
        "gs://album",
        "https://photos.example/library/",
        "https://photos.example:8443/",
    ]
)


def locate(uri: str) -> tuple[str, str]:
    """Root and key of a remote photo."""
    found = ROOTS.resolve(uri)
    assert isinstance(found, RemotePhoto)
    return found.root.uri, "/".join(found.segments)


@pytest.mark.parametrize(
    ("uri", "root", "key"),
    [
        ("s3://bucket/photos/2021/a.jpg", "s3://bucket/photos/", "photos/2021/a.jpg"),
        ("s3://bucket/photos/a%20b%2520%C3%A4%3F%23.jpg", "s3://bucket/photos/", "photos/a b%20ä?#.jpg"),
        ("s3://bucket/photos/a b.jpg", "s3://bucket/photos/", "photos/a b.jpg"),
        ("s3://bucket/photos/private/a.jpg", "s3://bucket/photos/private", "photos/private/a.jpg"),
        ("s3://bucket/photos/privateer/a.jpg", "s3://bucket/photos/", "photos/privateer/a.jpg"),
        ("gs://album/a.jpg", "gs://album", "a.jpg"),
        ("https://photos.example/library/a.jpg", "https://photos.example/library/", "library/a.jpg"),
        ("HTTPS://Photos.EXAMPLE:443/library/a.jpg", "https://photos.example/library/", "library/a.jpg"),
        ("https://photos.example:8443/a.jpg", "https://photos.example:8443/", "a.jpg"),
        ("https://photos.example/libr%61ry/a.jpg", "https://photos.example/library/", "library/a.jpg"),
    ],
)
def test_what_is_below_a_root(uri: str, root: str, key: str) -> None:
    assert locate(uri) == (root, key)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/other/a.jpg",
        "s3://bucket/photos",
        "s3://bucket/photos/",
        "s3://bucket/photos_of_others/a.jpg",
        "s3://Bucket/photos/a.jpg",
        "s3://bucket.evil.example/photos/a.jpg",
        "s3://bucket/photos/../other/a.jpg",
        "s3://bucket/photos/%2e%2e/other/a.jpg",
        "s3://bucket/photos/%252e%252e/other/a.jpg",
        "s3://bucket/photos/..%2fother/a.jpg",
        "s3://bucket/photos/./a.jpg",
        "s3://bucket/photos//a.jpg",
        "s3://bucket//photos/a.jpg",
        "s3://bucket/photos/a%00.jpg",
        "s3://bucket/photos/a%ff.jpg",
        "s3://bucket/photos/a\n.jpg",
        " s3://bucket/photos/a.jpg",
        "gs://bucket/photos/a.jpg",
        "s3a://bucket/photos/a.jpg",
        "http://photos.example/library/a.jpg",
        "https://photos.example/a.jpg",
        "https://photos.example:444/library/a.jpg",
        "https://photos.example:99999/library/a.jpg",
        "https://photos.example./library/a.jpg",
        "https://photos.example@evil.example/library/a.jpg",
        "https://user:secret@photos.example/library/a.jpg",
        "https://evil.example/library/a.jpg",
        "https://photos.example.evil.example/library/a.jpg",
        "https://photos.example\\@evil.example/library/a.jpg",
        "https://photos.example/library/..\\..\\a.jpg",
        "https://photos.example/library/a.jpg?X-Signature=secret",
        "https://photos.example/library/a.jpg#part",
        "https://photos.example/library/a.jpg?",
        "https://169.254.169.254/latest/meta-data",
        "//photos.example/library/a.jpg",
        "file:///etc/passwd",
        "https://photos.example/library/" + "a" * 5000,
    ],
)
def test_what_only_looks_so_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ROOTS.resolve(uri)
    assert refused.value.reason is Reason.URI_NOT_ALLOWED
    assert refused.value.metadata["allowed"] == "s3 (2 roots), gs (1 roots), https (2 roots)"
    assert "secret" not in refused.value.message
    assert "secret" not in refused.value.metadata["uri"]
    assert len(refused.value.message) < 600


def test_http_only_by_a_root_of_its_own() -> None:
    found = PhotoRoots(["http://127.0.0.1:8000/"]).resolve("http://127.0.0.1:8000/a.jpg")
    assert isinstance(found, RemotePhoto)
    with pytest.raises(InvalidRequest):
        PhotoRoots(["http://127.0.0.1:8000/"]).resolve("https://127.0.0.1:8000/a.jpg")


def test_a_folder_whose_name_must_be_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "100% ä"
    folder.mkdir()
    photo = folder / "a.jpg"
    assert PhotoRoots([folder.as_uri()]).resolve(photo.as_uri()) == photo


@pytest.mark.parametrize(
    "root",
    [
        "/photos",
        "ftp://host/",
        "file://host/photos",
        "https:///photos",
        "https://user:secret@host/",
        "https://host/?signature=secret",
        "s3://bucket/#part",
        "https://host:port/",
        "s3://bucket/a/../b",
        "s3://bucket//",
    ],
)
def test_what_is_no_root_is_refused_at_start(root: str) -> None:
    with pytest.raises(ValidationError, match="roots"):
        ImageSettings(roots=(root,))


def test_stores_belong_to_remote_roots() -> None:
    options = {"endpoint": "http://127.0.0.1:9000"}
    made = ImageSettings.model_validate({"roots": ["s3://bucket/"], "stores": {"s3://bucket/": options}})
    assert made.stores["s3://bucket/"].endpoint == "http://127.0.0.1:9000"
    for root in ("s3://other/", "file:///photos"):
        with pytest.raises(ValidationError, match="not a remote root"):
            ImageSettings.model_validate({"roots": ["s3://bucket/", "file:///photos"], "stores": {root: options}})
