"""Numbers the ledgers that nobody reads, so that whoever comes first, after a year, need not wait for all of it."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from services.persons.repository.ledger_positions import list_unnumbered, number_changes
from shared.db.engine import DATABASE_FAILURES, Database

log = structlog.get_logger(__name__)

EVERY_S: Final = 60.0


async def number_ledgers(database: Database) -> None:
    """Now and then give positions to what has none, in every library. Any number of workers may do so at once."""
    while True:
        try:
            async with database.transaction() as tx:
                libraries = await list_unnumbered(tx)
            for library_id in libraries:
                await number_changes(database, library_id)
        except DATABASE_FAILURES as error:
            log.warning("ledgers_not_numbered", error=type(error).__name__)
        await asyncio.sleep(EVERY_S)
