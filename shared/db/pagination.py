"""Keyset pages: the one way to page.

A page token is opaque to the caller: a version, the sort key of the last row seen, and a hash of both that and the call it
belongs to, so that a token which was changed, or made for another call, is refused before it reaches the database. The sort
key ends in a unique column, so that no row is skipped or repeated while others insert.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, literal, or_, tuple_
from sqlalchemy.engine import Row

from shared.errors import InvalidRequest, Reason

T = TypeVar("T")
TOKEN_VERSION = 1


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: how many rows at most, after which sort key."""

    size: int
    after: tuple[Any, ...] | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows of one page, and the token of the next; empty at the end."""

    items: list[T]
    next_token: str


@dataclass(frozen=True, slots=True)
class SortKey:
    """One column of the order."""

    column: ColumnElement[Any]
    descending: bool = False


def read_page_request(size: int, token: str, *, default: int, maximum: int, filters: object) -> PageRequest:
    """Check ``page_size`` and ``page_token`` of a request.

    ``filters`` is everything else of the call that decides which rows come and in what order; its ``repr`` is hashed into
    the token. Raises :class:`InvalidRequest` for a negative size, or a token made for other filters.
    """
    if size < 0:
        raise InvalidRequest("page_size must not be negative", field="page_size")
    fingerprint = hashlib.sha256(repr(filters).encode()).hexdigest()[:16]
    after = _decode(token, fingerprint) if token else None
    return PageRequest(size=min(size or default, maximum), after=after, fingerprint=fingerprint)


def keyset(statement: Select[Any], request: PageRequest, order: Sequence[SortKey]) -> Select[Any]:
    """Add order, position and limit to a query. ``order`` must end in a unique column; no column of it may be NULL."""
    if request.after is not None:
        if len(request.after) != len(order):
            raise _bad_token()
        statement = statement.where(_after(order, request.after))
    directions = [key.column.desc() if key.descending else key.column.asc() for key in order]
    return statement.order_by(*directions).limit(request.size + 1)


def make_page(
    rows: Sequence[Row[Any]],
    request: PageRequest,
    convert: Callable[[Row[Any]], T],
    position: Callable[[Row[Any]], Sequence[Any]],
) -> Page[T]:
    """Turn the rows of a :func:`keyset` query into a page; ``position`` gives a row's sort key in the same order."""
    shown = rows[: request.size]
    more = len(rows) > request.size
    token = _encode(request.fingerprint, position(shown[-1])) if more else ""
    return Page([convert(row) for row in shown], token)


def _after(order: Sequence[SortKey], values: Sequence[Any]) -> ColumnElement[bool]:
    if len({key.descending for key in order}) == 1:
        # A comparison of rows is a place in an index on these columns.
        row = tuple_(*(key.column for key in order))
        place = tuple_(*(literal(value, key.column.type) for key, value in zip(order, values, strict=True)))
        return row < place if order[0].descending else row > place
    # Written out, since the columns go in different directions.
    clauses: list[ColumnElement[bool]] = []
    for position, key in enumerate(order):
        equal = [order[i].column == values[i] for i in range(position)]
        beyond = key.column < values[position] if key.descending else key.column > values[position]
        clauses.append(and_(*equal, beyond))
    return or_(false(), *clauses)


def _encode(fingerprint: str, values: Sequence[Any]) -> str:
    packed = [_pack(value) for value in values]
    body = json.dumps([TOKEN_VERSION, _seal(fingerprint, packed), packed], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def _decode(token: str, fingerprint: str) -> tuple[Any, ...]:
    try:
        body = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, seal, packed = body
        if version != TOKEN_VERSION or seal != _seal(fingerprint, packed):
            raise _bad_token()
        return tuple(_unpack(value) for value in packed)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _bad_token() from error


def _seal(fingerprint: str, packed: list[Any]) -> str:
    return hashlib.sha256(json.dumps([fingerprint, packed]).encode()).hexdigest()[:16]


def _bad_token() -> InvalidRequest:
    return InvalidRequest(
        "page_token does not belong to this call: repeat the call with the filters it was made for",
        field="page_token",
        reason=Reason.PAGE_TOKEN_INVALID,
    )


def _pack(value: Any) -> list[Any]:
    if isinstance(value, UUID):
        return ["u", str(value)]
    if isinstance(value, datetime):
        return ["t", value.isoformat()]
    if isinstance(value, float):
        return ["f", value.hex()]
    if isinstance(value, int | str):
        return ["v", value]
    raise TypeError(f"{type(value).__name__} cannot be part of a page token")


def _unpack(packed: list[Any]) -> Any:
    kind, value = packed
    if kind == "u":
        return UUID(value)
    if kind == "t":
        return datetime.fromisoformat(value)
    if kind == "f":
        number = float.fromhex(value)
        if not math.isfinite(number):
            raise ValueError("not finite")
        return number
    if kind == "v" and isinstance(value, int | str):
        return value
    raise ValueError(f"unknown kind {kind!r}")
