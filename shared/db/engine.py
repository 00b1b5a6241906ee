"""The database connection pool and the unit of work.

A use case receives a :class:`Transaction`, reads and writes through it, and says with :meth:`Transaction.after_commit` what
is to happen once its work is safe. Nothing commits by itself half way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import Executable, text
from sqlalchemy.engine import CursorResult, Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.config import DatabaseSettings

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]

DATABASE_FAILURES = (DBAPIError, PoolTimeout, OSError)
"""What a loop that goes on for as long as its process must outlive: PostgreSQL away or busy, or the pool used up."""


class Transaction:
    """One PostgreSQL transaction (READ COMMITTED)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._callbacks: list[Callable[[], None]] = []

    @property
    def connection(self) -> AsyncConnection:
        """The SQLAlchemy connection, for what this class does not offer (streams)."""
        return self._connection

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> CursorResult[Any]:
        """Run one statement; a sequence of parameters runs it once for each, in one round trip where the driver can."""
        return await self._connection.execute(statement, parameters)

    async def rows(self, statement: Executable, parameters: Parameters | None = None) -> Sequence[Row[Any]]:
        """All rows of a query."""
        return (await self.execute(statement, parameters)).all()

    async def one_or_none(self, statement: Executable, parameters: Parameters | None = None) -> Row[Any] | None:
        """The only row, or None; more than one is an error of ours."""
        return (await self.execute(statement, parameters)).one_or_none()

    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any:
        """First column of the first row, or None."""
        return (await self.execute(statement, parameters)).scalar()

    async def copy(self, table: str, columns: Sequence[str], records: Iterable[Sequence[Any]]) -> None:
        """Add many rows by COPY, the cheapest way PostgreSQL has. Values are as asyncpg takes them.

        Errors are asyncpg's own, not SQLAlchemy's.
        """
        driver = (await self._connection.get_raw_connection()).driver_connection
        assert isinstance(driver, asyncpg.Connection)
        await driver.copy_records_to_table(table, records=records, columns=list(columns))

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the transaction is committed; never if it is rolled back."""
        self._callbacks.append(callback)

    def run_callbacks(self) -> None:
        """Run what :meth:`after_commit` collected, in order."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Database:
    """A pool of connections to PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    @classmethod
    def connect(cls, settings: DatabaseSettings, *, application: str) -> Database:
        """Make the pool; nothing is connected until first use. ``application`` shows in pg_stat_activity."""
        engine = create_async_engine(
            settings.url.get_secret_value(),
            pool_size=settings.pool_size,
            max_overflow=settings.pool_size,
            pool_pre_ping=True,
            pool_recycle=1800,
            connect_args={
                "timeout": settings.connect_timeout_s,
                "server_settings": {
                    "application_name": application,
                    "timezone": "UTC",
                    "lock_timeout": str(settings.lock_timeout_ms),
                    "statement_timeout": str(settings.statement_timeout_ms),
                    "idle_in_transaction_session_timeout": "60000",
                },
            },
        )
        return cls(engine)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commits at the end of the block, rolls back if it raises."""
        async with self.engine.connect() as connection:
            tx = Transaction(connection)
            async with connection.begin():
                yield tx
            tx.run_callbacks()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """A read-only transaction that sees one moment (REPEATABLE READ), however many statements it takes."""
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                yield Transaction(connection)

    async def ping(self) -> None:
        """Raise if PostgreSQL does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
