"""ChangeService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from kith.persons.v1 import changes_pb2 as pb
from kith.persons.v1 import changes_pb2_grpc
from services.persons.convert import check_reason
from services.persons.convert_changes import from_cursor, from_list_changes, to_change, to_face_change
from services.persons.domain.model import PersonsDeps
from services.persons.domain.undoing import Undo, undo_change
from services.persons.domain.watching import ChangeWatch
from services.persons.repository.ledger_pages import get_change, list_change_faces, list_changes
from services.persons.repository.ledger_positions import number_changes
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_failure
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]

SHOWN_SKIPPED = 1000


class ChangeServicer(changes_pb2_grpc.ChangeServiceServicer):
    """What was done to people and faces, by whom, and why."""

    def __init__(self, database: Database, mutations: Mutations, deps: PersonsDeps, watch: ChangeWatch) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._watch = watch

    async def ListChanges(self, request: pb.ListChangesRequest, context: Context) -> pb.ListChangesResponse:
        library_id = parse_library_id(request.library_id)
        where = from_list_changes(request)
        page = read_page_request(
            request.page_size, request.page_token, default=50, maximum=500, filters=(library_id, where)
        )
        await number_changes(self._database, library_id)
        async with self._database.transaction() as tx:
            found = await list_changes(tx, library_id, page, where)
        return pb.ListChangesResponse(
            changes=[to_change(entry) for entry in found.items], next_page_token=found.next_token
        )

    async def GetChange(self, request: pb.GetChangeRequest, context: Context) -> pb.GetChangeResponse:
        library_id, change_id = parse_library_id(request.library_id), parse_uuid(request.change_id, "change_id")
        await number_changes(self._database, library_id)
        async with self._database.transaction() as tx:
            entry = await get_change(tx, library_id, change_id)
        return pb.GetChangeResponse(change=to_change(entry))

    async def UndoChange(self, request: pb.UndoChangeRequest, context: Context) -> pb.UndoChangeResponse:
        command = Undo(
            parse_library_id(request.library_id),
            parse_uuid(request.change_id, "change_id"),
            check_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.UndoChangeResponse:
            made = await undo_change(tx, self._deps, command, caller)
            answer = pb.UndoChangeResponse(
                reverted_count=made.reverted,
                skipped=[to_failure(item) for item in made.skipped[:SHOWN_SKIPPED]],
                skipped_count=len(made.skipped),
            )
            if made.change_id is not None and not request.dry_run:
                answer.change.CopyFrom(to_change(await get_change(tx, command.library_id, made.change_id)))
            return answer

        # Readers pass over a change that is being undone, so it gets its position before.
        await number_changes(self._database, command.library_id)
        return await self._mutations.run(request, pb.UndoChangeResponse, work, dry_run=request.dry_run)

    async def ListChangeFaces(self, request: pb.ListChangeFacesRequest, context: Context) -> pb.ListChangeFacesResponse:
        library_id, change_id = parse_library_id(request.library_id), parse_uuid(request.change_id, "change_id")
        page = read_page_request(
            request.page_size, request.page_token, default=100, maximum=1000, filters=(library_id, change_id)
        )
        async with self._database.transaction() as tx:
            await get_change(tx, library_id, change_id)
            found = await list_change_faces(tx, change_id, page)
        return pb.ListChangeFacesResponse(
            faces=[to_face_change(change) for change in found.items], next_page_token=found.next_token
        )

    async def WatchChanges(
        self, request: pb.WatchChangesRequest, context: Context
    ) -> AsyncIterator[pb.WatchChangesResponse]:
        library_id = parse_library_id(request.library_id)
        if request.after_cursor:
            position = from_cursor(library_id, request.after_cursor, "after_cursor")
        else:
            position = await self._watch.find_end(library_id)
        # Tells the caller that the watch has begun: what is committed after this is not missed.
        await context.send_initial_metadata(())
        async with aclosing(self._watch.watch(library_id, position)) as entries:
            async for entry in entries:
                yield pb.WatchChangesResponse(change=to_change(entry))
