"""Migrations and the unit of work."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.config import DatabaseSettings
from shared.db.engine import DATABASE_FAILURES, Database
from shared.db.schema import metadata
from shared.foundation import Foundation
from shared.migrate import migrate_database
from tests.integration.conftest import Stores


@pytest.fixture
async def empty(stores: Stores) -> AsyncIterator[DatabaseSettings]:
    """A database without any table."""
    name = f"kith_{secrets.token_hex(6)}"
    await stores.execute(f"CREATE DATABASE {name}")
    yield DatabaseSettings.model_validate({"url": stores.database(name), "pool_size": 1})
    await stores.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
    )
    return list(compare_metadata(context, metadata))


def _revisions(connection: Connection) -> tuple[str, ...]:
    return MigrationContext.configure(connection).get_current_heads()


async def test_migrations_make_exactly_the_tables_that_the_code_knows(base: Foundation) -> None:
    async with base.database.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
        assert len(await connection.run_sync(_revisions)) == 1


async def test_constraints_on_values_are_in_the_database_too(base: Foundation) -> None:
    # Alembic does not compare CHECK constraints.
    async with base.database.transaction() as tx:
        rows = await tx.rows(
            text(
                "SELECT conrelid::regclass::text AS name, count(*) AS checks FROM pg_constraint"
                " WHERE contype = 'c' AND conrelid <> 0 GROUP BY 1"
            )
        )
    found = {row.name: row.checks for row in rows}
    expected = {
        table.name: checks
        for table in metadata.tables.values()
        if (checks := sum(type(constraint).__name__ == "CheckConstraint" for constraint in table.constraints))
    }
    assert found == expected


async def test_migrating_twice_or_from_two_places_at_once_is_harmless(empty: DatabaseSettings) -> None:
    await asyncio.gather(migrate_database(empty), migrate_database(empty))
    await migrate_database(empty)
    database = Database.connect(empty, application="test")
    try:
        async with database.engine.connect() as connection:
            assert await connection.run_sync(_differences) == []
    finally:
        await database.close()


async def test_what_waits_for_the_commit_is_called_after_it_and_only_then(base: Foundation) -> None:
    called: list[str] = []
    async with base.database.transaction() as tx:
        tx.after_commit(lambda: called.append("first"))
        tx.after_commit(lambda: called.append("second"))
        assert called == []
    assert called == ["first", "second"]

    async def fail() -> None:
        async with base.database.transaction() as tx:
            tx.after_commit(lambda: called.append("never"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert called == ["first", "second"]


async def test_plans_are_kept_for_a_transaction_of_few_rows_and_for_no_other(empty: DatabaseSettings) -> None:
    database = Database.connect(empty, application="test")
    modes = []
    try:
        # On the one connection there is.
        for few_rows in (False, True, False):
            async with database.transaction(few_rows=few_rows) as tx:
                modes.append(await tx.scalar(text("SHOW plan_cache_mode")))
    finally:
        await database.close()
    assert modes == ["auto", "force_generic_plan", "auto"]


async def test_a_commit_that_fails_calls_nothing(base: Foundation) -> None:
    called: list[str] = []
    async with base.database.transaction() as tx:
        await tx.execute(
            text("CREATE TABLE test_late (one integer UNIQUE DEFERRABLE INITIALLY DEFERRED)"),
        )

    async def break_the_rule() -> None:
        async with base.database.transaction() as tx:
            tx.after_commit(lambda: called.append("never"))
            # Checked at the commit.
            await tx.execute(text("INSERT INTO test_late VALUES (1), (1)"))

    with pytest.raises(DBAPIError):
        await break_the_rule()
    assert called == []


async def test_a_snapshot_sees_one_moment_and_cannot_write(empty: DatabaseSettings) -> None:
    one, other = (Database.connect(empty, application="test") for _ in range(2))
    try:
        async with other.transaction() as tx:
            await tx.execute(text("CREATE TABLE test_moment (one integer)"))
        count = text("SELECT count(*) FROM test_moment")
        add = text("INSERT INTO test_moment VALUES (1)")
        async with one.snapshot() as tx:
            assert await tx.scalar(count) == 0
            async with other.transaction() as writer:
                await writer.execute(add)
            assert await tx.scalar(count) == 0
        with pytest.raises(DBAPIError, match="read-only"):
            async with one.snapshot() as tx:
                await tx.execute(add)
        # The connection comes back to the pool as it was.
        async with one.transaction() as tx:
            await tx.execute(add)
            assert await tx.scalar(text("SHOW transaction_isolation")) == "read committed"
    finally:
        await one.close()
        await other.close()


async def test_a_pool_that_is_used_up_is_a_failure_that_loops_outlive(empty: DatabaseSettings) -> None:
    database = Database.connect(empty, application="test")
    database.engine.pool._timeout = 0.01  # type: ignore[attr-defined]
    try:
        async with database.transaction(), database.transaction():
            with pytest.raises(PoolTimeout) as used_up:
                await database.ping()
        assert isinstance(used_up.value, DATABASE_FAILURES)
        await database.ping()
    finally:
        await database.close()


async def test_sessions_carry_their_name_limits_and_utc(base: Foundation) -> None:
    async with base.database.transaction() as tx:
        shown = [await tx.scalar(text(f"SHOW {name}")) for name in ("application_name", "timezone", "lock_timeout")]
    assert shown == ["kith.test", "UTC", "4s"]


async def test_a_call_cancelled_at_any_moment_leaves_nothing_behind(empty: DatabaseSettings) -> None:
    """With one connection for all: whoever comes after a cancelled call commits, and what was cancelled never does."""
    database = Database.connect(empty, application="kith.test")
    reader = Database.connect(empty, application="kith.test.reader")
    async with database.transaction() as tx:
        await tx.execute(text("CREATE TABLE notes (turns integer, word text)"))

    async def write(turns: int) -> None:
        async with database.transaction() as tx:
            await tx.execute(text("INSERT INTO notes VALUES (:turns, 'cancelled')"), {"turns": turns})
            await tx.execute(text("SELECT pg_sleep(10)"))

    expected = []
    for turns in range(1, 16):
        call = asyncio.create_task(write(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with database.transaction() as tx:
            await tx.execute(text("INSERT INTO notes VALUES (:turns, 'after')"), {"turns": turns})
        expected.append((turns, "after"))
        async with reader.snapshot() as tx:
            rows = await tx.rows(text("SELECT turns, word FROM notes ORDER BY turns"))
        assert [tuple(row) for row in rows] == expected
    await database.close()
    await reader.close()
