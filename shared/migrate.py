"""Brings the database schema up to this version: ``python -m shared.migrate``.

Safe to run from many places at once: an advisory lock lets one do it. Every migration only expands the schema, and locks no
table for long, so servers of the version before go on beside it. One that breaks off is run again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from shared.config import DatabaseSettings, load_settings
from shared.telemetry.logging import configure_logging

log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "db" / "migrations"
# Any number will do, as long as nothing else locks it.
LOCK = 0x6B697468
LOCK_TIMEOUT = "4s"
LOCK_POLL_S = 0.1


async def migrate_database(settings: DatabaseSettings, revision: str = "head") -> None:
    """Run every migration up to ``revision``, each in a transaction of its own or, if it takes long, in several."""
    engine = create_async_engine(settings.url.get_secret_value())
    try:
        async with engine.connect() as connection:
            await _wait_turn(connection)
            # A migration that waits for a lock makes everybody queue behind it: better to give up and be run again.
            await connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.commit()
            await connection.run_sync(_upgrade, revision)
            await connection.commit()
    finally:
        await engine.dispose()


async def _wait_turn(connection: AsyncConnection) -> None:
    """Ask again and again for the lock: a statement that waited for it would be a transaction that an index, built beside all
    transactions that are under way, waits for in its turn.
    """
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
        await connection.commit()
        await asyncio.sleep(LOCK_POLL_S)


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    command.upgrade(config, revision)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m shared.migrate", description="Migrate the database of KITH_DATABASE_URL."
    )
    parser.add_argument("--revision", default="head", help="stop at this revision (default: the newest)")
    revision = parser.parse_args().revision
    settings = load_settings()
    configure_logging(settings.telemetry, process="migrate")
    asyncio.run(migrate_database(settings.database, revision))
    log.info("migrated", revision=revision)
    return 0


if __name__ == "__main__":
    sys.exit(main())
