"""Statements compiled once, for the calls that come thousands of times a second.

SQLAlchemy makes, hashes, looks up and binds a statement anew at each execution, and wraps what comes back: some 350 us of
Python around 30 us of driver. A :class:`Query` is written with the same tables and expressions, by a module that makes it
once with ``bindparam`` where values go; then only the driver is left::

    _BY_ID = Query(select(persons).where(persons.c.person_id == bindparam("person_id")))
    ...
    row = await tx.one_or_none(_BY_ID, {"person_id": person_id})
"""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import Dialect, Executable
from sqlalchemy.dialects.postgresql.asyncpg import dialect as make_dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement

_ENDED = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    # What the driver says of a connection whose end it has heard of and not worked through yet.
    asyncpg.InternalClientError,
)
_DIALECT: Dialect = make_dialect()  # type: ignore[no-untyped-call]


class Query:
    """A statement that goes straight to the driver.

    Values are what asyncpg takes for the column's type, bound by name; ``IN`` lists are written ``== func.any(bindparam(..))``.
    Rows are named tuples of the statement's columns.
    """

    def __init__(self, statement: Executable) -> None:
        assert isinstance(statement, ClauseElement)
        compiled = statement.compile(dialect=_DIALECT)
        self.text = str(compiled)
        names: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        binds = getattr(compiled, "binds", {})
        # What the statement itself says (a status, a limit) needs no name from the caller.
        self._given = {name: binds[name].value for name in names if not binds[name].required}
        self._takes = [(name, _processor(binds[name].type)) for name in names]
        self._make_row: Callable[[asyncpg.Record], Any] | None = None

    async def fetch(self, connection: asyncpg.Connection, parameters: Mapping[str, Any]) -> list[Any]:
        """All rows; raises :class:`sqlalchemy.exc.DBAPIError` as any other statement would."""
        values = self._bind(parameters)
        with translate_driver_errors(self.text, connection):
            records = await connection.fetch(self.text, *values)
        if not records:
            return []
        if self._make_row is None:
            # Only an answer tells the names of all columns, whatever the statement is made of.
            row: Any = namedtuple("Row", records[0].keys(), rename=True)  # type: ignore[misc]
            self._make_row = row._make
        return list(map(self._make_row, records))

    async def stream(
        self, connection: asyncpg.Connection, parameters: Mapping[str, Any], rows: int
    ) -> AsyncIterator[list[asyncpg.Record]]:
        """The driver's own records, at most ``rows`` at a time; in a transaction, and with errors as :meth:`fetch`."""
        values = self._bind(parameters)
        with translate_driver_errors(self.text, connection):
            cursor = await connection.cursor(self.text, *values)
            records = await cursor.fetch(rows)
        while records:
            yield records
            with translate_driver_errors(self.text, connection):
                records = await cursor.fetch(rows)

    def _bind(self, parameters: Mapping[str, Any]) -> list[Any]:
        values = []
        for name, process in self._takes:
            value = parameters[name] if name in parameters else self._given[name]
            values.append(value if process is None else process(value))
        return values


@contextmanager
def translate_driver_errors(statement: str, connection: asyncpg.Connection | None = None) -> Iterator[None]:
    """Raise what SQLAlchemy raises for asyncpg's own errors, without the values; no ``connection``: it could not be made."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        lost = connection is None or isinstance(error, _ENDED) or _is_closed(connection)
        raise DBAPIError(statement, None, error, hide_parameters=True, connection_invalidated=lost) from error


def _is_closed(connection: asyncpg.Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # A pool takes a closed connection back by itself, and then it answers nothing any more.
        return True


async def set_codecs(connection: asyncpg.Connection) -> None:
    """Let JSONB come as SQLAlchemy has it come on its own connections; given as text, as its types make it."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=lambda text: text, decoder=_read_json)


def _read_json(text: str) -> Any:
    # What most rows have where they may have more; to find that out takes json a microsecond, and a page has hundreds of them.
    return {} if text == "{}" else json.loads(text)


def _processor(kind: Any) -> Callable[[Any], Any] | None:
    found: Callable[[Any], Any] | None = kind.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    return found
