"""Alembic's entry: runs migrations over the connection that ``shared.migrate`` (or the alembic command) gives it."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from shared.config import load_settings
from shared.db.schema import metadata


def run_migrations(connection: Connection) -> None:
    # A migration that takes long divides itself into transactions, so none may be part of one with others.
    context.configure(
        connection=connection, target_metadata=metadata, compare_type=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_from_command_line() -> None:
    engine = create_async_engine(load_settings().database.url.get_secret_value())
    async with engine.connect() as connection:
        await connection.run_sync(run_migrations)
        await connection.commit()
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run_migrations(given)
else:
    asyncio.run(run_from_command_line())
