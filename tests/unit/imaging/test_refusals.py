"""What is told back of a uri, and what is not."""

from __future__ import annotations

import pytest

from shared.imaging.refusals import show_uri


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("file:///photos/anna@home.jpg", "file:///photos/anna@home.jpg"),
        ("https://host:443/a@b.jpg", "https://host:443/a@b.jpg"),
        ("https://user:secret@host/x.jpg", "https://***@host/x.jpg"),
        ("https://user:sec@ret@host/x.jpg", "https://***@host/x.jpg"),
        ("https://user:sec/ret@host/x.jpg", "https://***@host/x.jpg"),
        ("https://host/x.jpg?signature=secret", "https://host/x.jpg?***"),
        ("https://host/x.jpg#token=secret", "https://host/x.jpg#***"),
        ("https://host/x.jpg#a?secret", "https://host/x.jpg#***"),
    ],
)
def test_secrets_are_not_told(uri: str, shown: str) -> None:
    assert show_uri(uri) == shown


def test_a_long_uri_is_cut() -> None:
    assert len(show_uri("file:///" + "x" * 10_000)) < 400
