"""Brings the database schema up to this version: ``python -m shared.migrate``.

Safe to run from many places at once: an advisory lock lets one do it. Every migration only expands the schema, so servers of
the version before go on beside it.
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
from sqlalchemy.ext.asyncio import create_async_engine

from shared.config import DatabaseSettings, load_settings
from shared.telemetry.logging import configure_logging

log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "db" / "migrations"
# Any number will do, as long as nothing else locks it.
LOCK = 0x6B697468
LOCK_TIMEOUT = "4s"


async def migrate_database(settings: DatabaseSettings, revision: str = "head") -> None:
    """Run every migration up to ``revision``, in one transaction."""
    engine = create_async_engine(settings.url.get_secret_value())
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
            # A migration that waits for a lock makes everybody queue behind it: better to give up and be run again.
            await connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.commit()
            await connection.run_sync(_upgrade, revision)
            await connection.commit()
    finally:
        await engine.dispose()


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
