"""Following the ledger: every change after a position, once, as it happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from services.persons.repository.ledger_pages import LedgerEntry, list_changes_after
from services.persons.repository.ledger_positions import get_last_position, number_changes
from shared.db.engine import Database
from shared.db.notify import Channel, Listener

PAGE: Final = 100
"""So many changes are in memory at once, however far behind a watcher is."""


class ChangeWatch:
    """Follows ledgers by notification, and by looking every ``poll_s`` seconds in case one was lost."""

    def __init__(self, database: Database, listener: Listener, poll_s: float) -> None:
        self._database = database
        self._listener = listener
        self._poll_s = poll_s

    async def find_end(self, library_id: str) -> int:
        """The position of the last change committed so far: what is watched after it is watched from now on."""
        await number_changes(self._database, library_id)
        async with self._database.transaction() as tx:
            return await get_last_position(tx, library_id)

    async def watch(self, library_id: str, after: int) -> AsyncGenerator[LedgerEntry, None]:
        """The changes after a position, in order of position, without gap or double. Does not end."""
        position = after
        async with self._listener.subscribe(Channel.CHANGES, library_id) as notified:
            while True:
                await number_changes(self._database, library_id)
                async with self._database.transaction() as tx:
                    found = await list_changes_after(tx, library_id, position, PAGE)
                for entry in found:
                    yield entry
                if found:
                    position = found[-1].position
                if len(found) < PAGE:
                    await notified.wait(self._poll_s)
