"""Page tokens: opaque, bound to their call, and refused when anything about them is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, select

from shared.db.pagination import PageRequest, SortKey, keyset, make_page, read_page_request
from shared.errors import InvalidRequest, Reason

FILTERS = ("default", ("kind",))


def read(token: str, filters: object = FILTERS, size: int = 10) -> PageRequest:
    return read_page_request(size, token, default=50, maximum=500, filters=filters)


def make_token(position: Sequence[Any], filters: object = FILTERS) -> str:
    """The token after a row at ``position``."""
    table = Table("rows", MetaData(), Column("row_id", Integer))
    engine = create_engine("sqlite://")
    table.create(engine)
    with engine.connect() as connection:
        connection.execute(insert(table), [{"row_id": 1}, {"row_id": 2}])
        rows = connection.execute(select(table)).all()
    engine.dispose()
    return make_page(rows, read("", filters, size=1), lambda row: row, lambda _row: position).next_token


def refused(token: str, filters: object = FILTERS) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        read(token, filters)
    return error.value


POSITION = [UUID(int=7), datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC), 0.1, 5, "Zoë", True]


def test_a_position_comes_back_as_it_was() -> None:
    assert read(make_token(POSITION)).after == tuple(POSITION)


@given(
    st.lists(
        st.one_of(st.uuids(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()), max_size=4
    )
)
def test_any_position_comes_back_as_it_was(position: list[Any]) -> None:
    assert read(make_token(position)).after == tuple(position)


def test_no_token_is_the_beginning() -> None:
    assert read("").after is None


def test_a_token_is_good_for_its_own_call_only() -> None:
    error = refused(make_token(POSITION), filters=("default", ("other kind",)))
    assert error.reason is Reason.PAGE_TOKEN_INVALID
    assert [violation.field for violation in error.violations] == ["page_token"]


def test_every_changed_character_is_noticed() -> None:
    token = make_token(POSITION)
    good = read(token)
    for index, character in enumerate(token):
        changed = token[:index] + ("A" if character != "A" else "B") + token[index + 1 :]
        if _bytes(changed) == _bytes(token):
            # The last character of base64 has bits that mean nothing.
            assert read(changed) == good
        else:
            assert refused(changed).reason is Reason.PAGE_TOKEN_INVALID


def _bytes(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def _body(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "!",
        "ключ",
        "AAAA",
        _body(),
        _body(1),
        _body(1, "x", None),
        _body(1, "x", [["u", 5]]),
        _body(1, "x", [["f", "0x1p99999"]]),
        _body({}, {}, {}),
        base64.urlsafe_b64encode(b"5").decode(),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
    ids=range(12),
)
def test_nonsense_is_the_callers_fault(token: str) -> None:
    assert refused(token).reason is Reason.PAGE_TOKEN_INVALID


def test_a_position_of_another_kind_does_not_reach_the_database() -> None:
    body = json.loads(base64.urlsafe_b64decode(make_token([5]) + "=="))
    body[-1] = [["v", "five"]]
    assert refused(_body(*body)).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("value", [None, b"bytes", ("a",)])
def test_what_cannot_be_sorted_by_is_our_fault(value: object) -> None:
    with pytest.raises(TypeError):
        make_token([value])


def test_a_token_of_another_length_is_refused() -> None:
    table = Table("rows", MetaData(), Column("a", Integer), Column("b", Integer))
    with pytest.raises(InvalidRequest) as error:
        keyset(select(table), read(make_token([1])), [SortKey(table.c.a), SortKey(table.c.b)])
    assert error.value.reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (1, 1), (500, 500), (501, 500)])
def test_sizes_are_kept_within_bounds(asked: int, given_: int) -> None:
    assert read("", size=asked).size == given_


def test_a_negative_size_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest) as error:
        read("", size=-1)
    assert [violation.field for violation in error.value.violations] == ["page_size"]
