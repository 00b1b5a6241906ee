"""Identifiers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.ids import (
    DEFAULT_LIBRARY,
    RandomIds,
    parse_asset_id,
    parse_cluster_id,
    parse_library_id,
    parse_uuid,
)


class SteppingClock:
    """One millisecond later each time."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        self._now += timedelta(milliseconds=1)
        return self._now


START = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.binary(min_size=10, max_size=10))
def test_a_uuid_has_the_bits_of_version_7(noise: bytes) -> None:
    made = RandomIds(SteppingClock(START), lambda size: noise[:size]).new_uuid()
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == int(START.timestamp() * 1000) + 1
    # The 74 random bits are all there.
    tail = int.from_bytes(noise, "big") & ((1 << 74) - 1)
    assert (made.int >> 64 & 0x0FFF) << 62 | made.int & ((1 << 62) - 1) == tail


def test_uuids_sort_by_the_time_they_were_made() -> None:
    ids = RandomIds(SteppingClock(START))
    made = [ids.new_uuid() for _ in range(200)]
    assert made == sorted(made)
    assert [str(one) for one in made] == sorted(str(one) for one in made)
    assert len(set(made)) == 200


def test_cluster_ids_are_read_back() -> None:
    made = RandomIds(SteppingClock(START)).new_cluster_id()
    assert parse_cluster_id(made) == made


def test_a_uuid_is_read_in_either_case() -> None:
    text = "0190f3a1-7c3b-7def-8123-456789abcdef"
    assert str(parse_uuid(text, "id")) == str(parse_uuid(text.upper(), "id")) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "0190f3a17c3b7def8123456789abcdef",
        "{0190f3a1-7c3b-7def-8123-456789abcdef}",
        "urn:uuid:0190f3a1-7c3b-7def-8123-456789abcdef",
        "0190f3a1-7c3b-7def-8123-456789abcde٣",
        " 0190f3a1-7c3b-7def-8123-456789abcdef",
    ],
)
def test_anything_but_the_usual_form_is_refused_by_name(value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_uuid(value, "job_id")
    assert [violation.field for violation in refused.value.violations] == ["job_id"]
    assert "job_id" in refused.value.message


@pytest.mark.parametrize("value", ["", "clu_", "clu_0123456789aB", "clu_0123456789ab\n", "0123456789ab"])
def test_wrong_cluster_ids_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_cluster_id(value, "clusters[2]")
    assert refused.value.violations[0].field == "clusters[2]"


def test_no_library_is_the_default_one() -> None:
    assert parse_library_id("") == DEFAULT_LIBRARY
    assert parse_library_id("a.B-c_9") == "a.B-c_9"


@pytest.mark.parametrize("value", ["-a", ".a", "a b", "a/b", "é", "a" * 65, "a\n"])
def test_wrong_libraries_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_library_id(value)
    assert refused.value.violations[0].field == "library_id"


@pytest.mark.parametrize("value", ["", "a" * 129, "a\x00b", "a\nb"])
def test_wrong_asset_ids_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_asset_id(value)
    assert refused.value.violations[0].field == "asset_id"


def test_an_asset_may_be_called_nearly_anything() -> None:
    assert parse_asset_id("Fotos/2024 Zürich (1).jpg") == "Fotos/2024 Zürich (1).jpg"
