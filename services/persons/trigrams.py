"""Makes the trigrams of names that version N-1 has written beside this one, so that who has such a name is found by one alike.

N-1 leaves them empty, or a trigger empties them (migration 0003). They are made here, and not by that trigger, as what a letter
is would be another question in PostgreSQL, whose answer depends on its locale: :func:`make_trigrams` is the one truth. A later
version drops this together with the trigger.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

import structlog

from services.persons.domain.naming import make_trigrams
from services.persons.repository.names import fill_trigrams, list_names_without_trigrams
from shared.db.engine import DATABASE_FAILURES, Database

log = structlog.get_logger(__name__)

EVERY_S: Final = 60.0
BATCH: Final = 1_000


async def keep_trigrams(database: Database) -> None:
    """Now and then fill in what is missing. Any number of workers may do so at once."""
    while True:
        try:
            await fill_missing_trigrams(database)
        except DATABASE_FAILURES as error:
            log.warning("trigrams_not_filled", error=type(error).__name__)
        await asyncio.sleep(EVERY_S)


async def fill_missing_trigrams(database: Database) -> None:
    """Fill in what is missing now, batch by batch."""
    after: UUID | None = None
    while True:
        async with database.transaction() as tx:
            found = await list_names_without_trigrams(tx, after, BATCH)
            made = {row.person_id: (row.name_key, make_trigrams(row.name_key)) for row in found}
            # A name of signs alone has no trigram, and need not be written again each time.
            await fill_trigrams(tx, {person_id: name for person_id, name in made.items() if name[1]})
        if len(found) < BATCH:
            return
        after = found[-1].person_id
