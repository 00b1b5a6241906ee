"""The database connection pool and the unit of work.

A use case receives a :class:`Transaction`, reads and writes through it, and says with :meth:`Transaction.after_commit` what
is to happen once its work is safe. Nothing commits by itself half way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

import asyncpg
from sqlalchemy import Executable, event, make_url, text
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.config import DatabaseSettings
from shared.db.query import Query, set_codecs, translate_driver_errors

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
SentListener = Callable[[str], None]
_Isolation = Literal["read_committed", "repeatable_read"]

DATABASE_FAILURES = (DBAPIError, PoolTimeout, OSError)
"""What a loop that goes on for as long as its process must outlive: PostgreSQL away or busy, or the pool used up."""

_IDLE_S = 5.0
_RECYCLE_S = 1800
_RETURNED_AT = "returned_at"
_PLAN_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan"


class Reader(Protocol):
    """What answers a :class:`Query`: a transaction, or :attr:`Database.reads` for a single statement."""

    async def rows(self, statement: Query, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """All rows."""
        ...

    async def one_or_none(self, statement: Query, parameters: Mapping[str, Any]) -> Any | None:
        """The only row, or None; more than one is an error of ours."""
        ...


class Transaction:
    """One PostgreSQL transaction (READ COMMITTED)."""

    def __init__(
        self, connection: AsyncConnection, driver: asyncpg.Connection, listeners: Sequence[SentListener] = ()
    ) -> None:
        self._connection = connection
        self.driver = driver
        self._listeners = listeners
        self._callbacks: list[Callable[[], None]] = []

    @property
    def connection(self) -> AsyncConnection:
        """The SQLAlchemy connection, for what this class does not offer (streams)."""
        return self._connection

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> CursorResult[Any]:
        """Run one statement; a sequence of parameters runs it once for each, in one round trip where the driver can."""
        return await self._connection.execute(statement, parameters)

    async def rows(self, statement: Executable | Query, parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """All rows of a query."""
        if isinstance(statement, Query):
            for hear in self._listeners:
                hear(statement.text)
            return await statement.fetch(self.driver, parameters or {})
        return (await self.execute(statement, parameters)).all()

    async def one_or_none(
        self, statement: Executable | Query, parameters: Mapping[str, Any] | None = None
    ) -> Any | None:
        """The only row, or None; more than one is an error of ours."""
        if isinstance(statement, Query):
            return _one_or_none(await self.rows(statement, parameters))
        return (await self.execute(statement, parameters)).one_or_none()

    async def stream(self, statement: Query, rows: int) -> AsyncIterator[list[asyncpg.Record]]:
        """The rows of a query that has all its values, as the driver makes them, at most ``rows`` at a time."""
        for hear in self._listeners:
            hear(statement.text)
        async for records in statement.stream(self.driver, {}, rows):
            yield records

    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any:
        """First column of the first row, or None."""
        return (await self.execute(statement, parameters)).scalar()

    async def copy(self, table: str, columns: Sequence[str], records: Iterable[Sequence[Any]]) -> None:
        """Add many rows by COPY, the cheapest way PostgreSQL has. Values are as asyncpg takes them.

        Errors are asyncpg's own, not SQLAlchemy's.
        """
        await self.driver.copy_records_to_table(table, records=records, columns=list(columns))

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the transaction is committed; never if it is rolled back."""
        self._callbacks.append(callback)

    def run_callbacks(self) -> None:
        """Run what :meth:`after_commit` collected, in order."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Reads:
    """Reads of one statement each, with no transaction around them, on connections of their own.

    A statement alone sees one moment already; what BEGIN and COMMIT add is two round trips. Use a transaction, or
    :meth:`Database.snapshot`, where two statements must agree.
    """

    def __init__(self, dsn: str, size: int, listeners: Sequence[SentListener], **connect: Any) -> None:
        self._dsn = dsn
        self._size = size
        self._listeners = listeners
        self._connect = connect
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def rows(self, statement: Query, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """All rows. On a connection that is lost meanwhile the statement is sent once more, on a new one."""
        for hear in self._listeners:
            hear(statement.text)
        try:
            return await self._fetch(statement, parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # The others may have ended with it.
        await (self._pool or await self._open()).expire_connections()
        return await self._fetch(statement, parameters)

    async def one_or_none(self, statement: Query, parameters: Mapping[str, Any]) -> Any | None:
        """The only row, or None; more than one is an error of ours."""
        return _one_or_none(await self.rows(statement, parameters))

    async def _fetch(self, statement: Query, parameters: Mapping[str, Any]) -> Sequence[Any]:
        pool = self._pool or await self._open()
        with translate_driver_errors("CONNECT"):
            connection = await pool.acquire()
        try:
            return await statement.fetch(connection, parameters)
        finally:
            await pool.release(connection)

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._size,
                    # Nothing a SELECT does lasts, so there is nothing to reset, which would be a round trip.
                    reset=_nothing,
                    init=set_codecs,
                    **self._connect,
                )
            return self._pool

    async def close(self) -> None:
        """Close every connection, once its statement has ended."""
        if self._pool is not None:
            await self._pool.close()


class Database:
    """A pool of connections to PostgreSQL for transactions, and a smaller one for single reads."""

    def __init__(self, engine: AsyncEngine, reads: Reads, listeners: list[SentListener]) -> None:
        self.engine = engine
        self.reads = reads
        self.listeners = listeners
        """Told the text of every :class:`Query` sent; SQLAlchemy's own events tell of the other statements."""
        event.listen(engine.sync_engine, "checkin", _note_return)
        event.listen(engine.sync_engine, "checkout", _check_connection)

    @classmethod
    def connect(cls, settings: DatabaseSettings, *, application: str) -> Database:
        """Make the pools; nothing is connected until first use. ``application`` shows in pg_stat_activity.

        At most ``2.5 * pool_size`` connections: twice the size for transactions when many come at once, half for reads.
        """
        listeners: list[SentListener] = []
        url = make_url(settings.url.get_secret_value())
        connect = {
            "timeout": settings.connect_timeout_s,
            "server_settings": {
                "application_name": application,
                "timezone": "UTC",
                "lock_timeout": str(settings.lock_timeout_ms),
                "statement_timeout": str(settings.statement_timeout_ms),
                "idle_in_transaction_session_timeout": "60000",
            },
        }
        engine = create_async_engine(
            url,
            # Transactions are begun and ended by this module, so that a Query can be part of them.
            isolation_level="AUTOCOMMIT",
            pool_size=settings.pool_size,
            max_overflow=settings.pool_size,
            pool_recycle=_RECYCLE_S,
            connect_args=connect,
        )
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        return cls(engine, Reads(dsn, max(1, settings.pool_size // 2), listeners, **connect), listeners)

    @asynccontextmanager
    async def transaction(self, *, few_rows: bool = False) -> AsyncIterator[Transaction]:
        """Commits at the end of the block, rolls back if it raises.

        With ``few_rows`` PostgreSQL keeps the plans it has made for any values: for work on a handful of rows, found by their
        keys. It would plan a statement with ``= ANY`` anew each time, as a short list is cheaper than it takes any to be, and
        that costs more than the statement. Not where a value decides the plan: a person with so many faces, a whole library.
        """
        async with self._begin() as (tx, begun):
            if few_rows:
                with translate_driver_errors(_PLAN_ONCE, tx.driver):
                    await tx.driver.execute(_PLAN_ONCE)
            yield tx
            with translate_driver_errors("COMMIT", tx.driver):
                await begun.commit()
        tx.run_callbacks()

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[Transaction]:
        """A transaction that may do everything and is rolled back at the end of the block; no callback is run."""
        async with self._begin() as (tx, begun):
            yield tx
            with translate_driver_errors("ROLLBACK", tx.driver):
                await begun.rollback()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """A read-only transaction that sees one moment (REPEATABLE READ), however many statements it takes."""
        async with self._begin("repeatable_read", readonly=True) as (tx, begun):
            yield tx
            with translate_driver_errors("COMMIT", tx.driver):
                await begun.commit()

    @asynccontextmanager
    async def _begin(
        self, isolation: _Isolation | None = None, *, readonly: bool = False
    ) -> AsyncIterator[tuple[Transaction, asyncpg.transaction.Transaction]]:
        """A transaction that the block has to end; it is rolled back if the block raises."""
        async with contextlib.AsyncExitStack() as connections:
            connection, driver, begun = await self._start(connections, isolation, readonly)
            try:
                yield Transaction(connection, driver, self.listeners), begun
            except BaseException:
                try:
                    # With the connection the transaction is gone as well; the error that says so is the one to be raised.
                    with contextlib.suppress(
                        asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError
                    ):
                        if driver.is_in_transaction():
                            await begun.rollback()
                finally:
                    if driver.is_in_transaction():
                        driver.terminate()
                raise

    async def _start(
        self, connections: contextlib.AsyncExitStack, isolation: _Isolation | None, readonly: bool
    ) -> tuple[AsyncConnection, asyncpg.Connection, asyncpg.transaction.Transaction]:
        """BEGIN, on a connection that PostgreSQL has not ended since its last use."""
        while True:
            connection = await connections.enter_async_context(self.engine.connect())
            pooled = await connection.get_raw_connection()
            driver = pooled.driver_connection
            assert isinstance(driver, asyncpg.Connection)
            used_before = _RETURNED_AT in pooled.info
            begun = driver.transaction(isolation=isolation, readonly=readonly)
            try:
                with translate_driver_errors("BEGIN", driver):
                    await begun.start()
                return connection, driver, begun
            except BaseException as error:
                # Whether PostgreSQL has begun is not known, and asyncpg would take the next transaction for a part of this
                # one, which nobody commits: so nobody is to have this connection again.
                driver.terminate()
                ended = isinstance(error, DBAPIError) and error.connection_invalidated
                if not (ended and used_before):
                    raise
            await connection.invalidate()
            await connection.close()

    async def ping(self) -> None:
        """Raise if PostgreSQL does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.reads.close()
        await self.engine.dispose()


def _one_or_none(rows: Sequence[Any]) -> Any | None:
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows where there can be one")
    return rows[0] if rows else None


async def _nothing(_connection: asyncpg.Connection) -> None:
    return


def _note_return(_connection: object, record: Any) -> None:
    record.info[_RETURNED_AT] = time.monotonic()


def _check_connection(connection: Any, record: Any, _proxy: object) -> None:
    """Replace a connection that is known to be closed, and one that has not been used of late and does not answer.

    To ask each time would be a round trip for each transaction; one that was in use a moment ago has just been asked.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError("PostgreSQL has closed this connection")
    if time.monotonic() - record.info.get(_RETURNED_AT, time.monotonic()) > _IDLE_S:
        try:
            connection.ping()
        except Exception as error:
            raise DisconnectionError("PostgreSQL does not answer on this connection") from error
