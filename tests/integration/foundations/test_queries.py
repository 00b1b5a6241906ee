"""Statements that go straight to the driver: the same rows, the same errors, the same transaction."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import bindparam, func, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from shared.config import DatabaseSettings
from shared.db.engine import Database
from shared.db.query import Query
from shared.errors import Unavailable
from shared.rpc.failures import to_kith_error
from tests.integration.conftest import Stores

COUNT = Query(text("SELECT count(*) AS found FROM test_rows"))
ADD = Query(text("INSERT INTO test_rows VALUES (:number, :said) RETURNING number"))
FIND = Query(
    text("SELECT number, said FROM test_rows WHERE number = ANY(:numbers) ORDER BY number").columns(said=JSONB())
)
WHO = Query(text("SELECT pg_backend_pid() AS pid"))
# Waits until they have ended.
END = "SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity WHERE application_name = 'test-queries'"


@pytest.fixture
async def database(stores: Stores) -> AsyncIterator[Database]:
    """A database of its own with one table, and one connection at a time for reads."""
    name = f"kith_{secrets.token_hex(6)}"
    await stores.execute(f"CREATE DATABASE {name}")
    settings = DatabaseSettings.model_validate({"url": stores.database(name), "pool_size": 1})
    database = Database.connect(settings, application="test-queries")
    async with database.transaction() as tx:
        await tx.execute(text("CREATE TABLE test_rows (number integer PRIMARY KEY, said jsonb)"))
    yield database
    await database.close()
    await stores.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_query_is_part_of_its_transaction(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.rows(ADD, {"number": 1, "said": '{"a": [1]}'})
        await tx.execute(text("INSERT INTO test_rows VALUES (2, '{}')"))
        assert (await tx.rows(COUNT))[0].found == 2
        # Nobody else sees it yet.
        assert (await database.reads.rows(COUNT, {}))[0].found == 0
    assert (await database.reads.rows(COUNT, {}))[0].found == 2

    async def fail() -> None:
        async with database.transaction() as tx:
            await tx.rows(ADD, {"number": 3, "said": "{}"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert (await database.reads.rows(COUNT, {}))[0].found == 2


async def test_rows_are_the_same_from_a_read_and_in_a_transaction(database: Database) -> None:
    async with database.transaction() as tx:
        for number in (1, 2):
            await tx.rows(ADD, {"number": number, "said": '{"a": [1, null]}'})
        inside = await tx.rows(FIND, {"numbers": [2, 1]})
    alone = await database.reads.rows(FIND, {"numbers": [2, 1]})
    assert inside == alone == [(1, {"a": [1, None]}), (2, {"a": [1, None]})]
    assert [row.said for row in alone] == [{"a": [1, None]}] * 2
    assert await database.reads.one_or_none(FIND, {"numbers": [3]}) is None
    with pytest.raises(ValueError, match="2 rows"):
        await database.reads.one_or_none(FIND, {"numbers": [1, 2]})


async def test_what_a_statement_says_itself_needs_no_value(database: Database) -> None:
    query = Query(select(func.coalesce(bindparam("given", type_=JSONB()), literal({"b": 2}, JSONB())).label("said")))
    assert (await database.reads.rows(query, {"given": {"a": 1}}))[0].said == {"a": 1}
    with pytest.raises(KeyError):
        await database.reads.rows(query, {})


async def test_errors_are_those_of_any_statement(database: Database) -> None:
    async def add_twice() -> None:
        async with database.transaction() as tx:
            await tx.rows(ADD, {"number": 1, "said": "{}"})
            await tx.rows(ADD, {"number": 1, "said": '"a secret"'})

    with pytest.raises(DBAPIError) as refused:
        await add_twice()
    assert getattr(refused.value.orig, "sqlstate", None) == "23505"
    assert "secret" not in str(refused.value)
    # The connection comes back to the pool as it was.
    async with database.transaction() as tx:
        assert (await tx.rows(COUNT))[0].found == 0


def end_unseen(stores: Stores) -> None:
    """End the test's connections while its event loop stands still, so that nobody hears of it before the next use."""
    thread = threading.Thread(target=lambda: asyncio.run(stores.execute(END)))
    thread.start()
    thread.join()


async def test_a_cut_connection_costs_the_next_read_nothing(database: Database, stores: Stores) -> None:
    before = (await database.reads.rows(WHO, {}))[0].pid
    end_unseen(stores)
    assert (await database.reads.rows(WHO, {}))[0].pid != before


async def test_a_cut_connection_costs_the_next_transaction_nothing(database: Database, stores: Stores) -> None:
    async with database.transaction() as tx:
        before = (await tx.rows(WHO))[0].pid
    end_unseen(stores)
    async with database.transaction() as tx:
        assert (await tx.rows(WHO))[0].pid != before


async def test_a_connection_cut_in_a_transaction_says_that_the_database_is_away(
    database: Database, stores: Stores
) -> None:
    async def work() -> None:
        async with database.transaction() as tx:
            await tx.rows(ADD, {"number": 1, "said": "{}"})
            await stores.execute(END)
            await tx.rows(COUNT)

    with pytest.raises(DBAPIError) as lost:
        await work()
    assert isinstance(to_kith_error(lost.value), Unavailable)
    assert (await database.reads.rows(COUNT, {}))[0].found == 0


async def test_a_cancelled_transaction_leaves_nothing(database: Database) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as tx:
            await tx.rows(ADD, {"number": 1, "said": "{}"})
            begun.set()
            await tx.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.transaction() as tx:
        assert (await tx.rows(COUNT))[0].found == 0
