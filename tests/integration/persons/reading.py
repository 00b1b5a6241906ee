"""The ledger as a client reads it, and changes entered in transactions that a test holds open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from kith.persons.v1 import changes_pb2
from services.persons.domain.model import Change, ChangeKind
from services.persons.repository.changes import record_change
from services.persons.wiring import build_deps
from shared.caller import Caller
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.persons.client import PersonsClient, ask


class LedgerReader(PersonsClient):
    """The persons server, with short words for reading its ledger."""

    async def page(self, **fields: Any) -> changes_pb2.ListChangesResponse:
        """One page of changes."""
        return await ask(self.changes.ListChanges(changes_pb2.ListChangesRequest(**fields)))

    async def ids(self, **fields: Any) -> list[str]:
        """The changes that pass a filter, newest first."""
        return [change.id for change in (await self.page(page_size=500, **fields)).changes]

    async def faces(self, change_id: str, page_size: int = 1000) -> list[changes_pb2.FaceChange]:
        """What a change did to faces, page by page."""
        found: list[changes_pb2.FaceChange] = []
        token = ""
        while True:
            request = changes_pb2.ListChangeFacesRequest(change_id=change_id, page_size=page_size, page_token=token)
            answer = await self.changes.ListChangeFaces(request)
            found += answer.faces
            token = answer.next_page_token
            if not token:
                return found

    @asynccontextmanager
    async def watching(self, after_cursor: str = "", **fields: Any) -> AsyncIterator[Watcher]:
        """A watch that has begun when the block does, and is cancelled at its end."""
        call = self.changes.WatchChanges(changes_pb2.WatchChangesRequest(after_cursor=after_cursor, **fields))
        try:
            await call.initial_metadata()
            yield Watcher(call)
        finally:
            call.cancel()


class Watcher:
    """Reads a watch."""

    def __init__(self, call: Any) -> None:
        self._messages = aiter(call)

    async def next(self) -> changes_pb2.Change:
        """The next change."""
        async with translate_errors("persons"):
            message: changes_pb2.WatchChangesResponse = await anext(self._messages)
        return message.change

    async def take(self, count: int) -> list[changes_pb2.Change]:
        """The next changes."""
        return [await self.next() for _ in range(count)]


async def enter_change(
    base: Foundation,
    tx: Any,
    *,
    kind: ChangeKind = ChangeKind.PERSON_UPDATED,
    face_ids: Sequence[UUID] = (),
    actor: str = "somebody",
    undoes: UUID | None = None,
    library_id: str = "default",
) -> UUID:
    """Enter a change in a transaction, as any mutation would."""
    change = Change(kind=kind, face_ids=face_ids, undoes=undoes)
    return await record_change(tx, build_deps(base), library_id, change, Caller(actor, "test"))


async def enter_changes(base: Foundation, count: int, **fields: Any) -> list[str]:
    """Enter changes in one transaction, and commit it; their ids in the order of writing."""
    async with base.database.transaction() as tx:
        return [str(await enter_change(base, tx, **fields)) for _ in range(count)]
