"""SuggestionService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.suggestions.v1 import suggestions_pb2 as pb
from kith.suggestions.v1 import suggestions_pb2_grpc
from services.suggestions.convert import from_states, read_confidence, to_person_stats, to_suggestion
from services.suggestions.domain.model import SuggestionsDeps, SuggestionState
from services.suggestions.domain.ports import Assignments
from services.suggestions.domain.reviewing import (
    AnswerBegun,
    AnswerSuggestion,
    begin_accept,
    begin_reject,
    finish_accept,
    finish_reject,
)
from services.suggestions.repository.suggestions import (
    SuggestionFilter,
    count_by_person,
    count_by_state,
    get_suggestion,
    list_suggestions,
)
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.ids import parse_cluster_id, parse_library_id, parse_uuid
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]


class SuggestionServicer(suggestions_pb2_grpc.SuggestionServiceServicer):
    """Questions to people, and their answers."""

    def __init__(self, database: Database, mutations: Mutations, deps: SuggestionsDeps, persons: Assignments) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._persons = persons

    async def GetSuggestion(self, request: pb.GetSuggestionRequest, context: Context) -> pb.GetSuggestionResponse:
        library_id = parse_library_id(request.library_id)
        suggestion_id = parse_uuid(request.suggestion_id, "suggestion_id")
        async with self._database.transaction() as tx:
            found = await get_suggestion(tx, library_id, suggestion_id)
        return pb.GetSuggestionResponse(suggestion=to_suggestion(found))

    async def ListSuggestions(self, request: pb.ListSuggestionsRequest, context: Context) -> pb.ListSuggestionsResponse:
        library_id = parse_library_id(request.library_id)
        where = SuggestionFilter(
            person_id=parse_uuid(request.person_id, "person_id") if request.person_id else None,
            cluster_id=parse_cluster_id(request.cluster_id) if request.cluster_id else None,
            face_id=parse_uuid(request.face_id, "face_id") if request.face_id else None,
            states=from_states(request.states),
            min_confidence=read_confidence(request.min_confidence),
        )
        page = read_page_request(
            request.page_size, request.page_token, default=50, maximum=500, filters=(library_id, where)
        )
        async with self._database.transaction() as tx:
            found = await list_suggestions(tx, library_id, page, where)
        return pb.ListSuggestionsResponse(
            suggestions=[to_suggestion(suggestion) for suggestion in found.items], next_page_token=found.next_token
        )

    async def GetSuggestionStats(
        self, request: pb.GetSuggestionStatsRequest, context: Context
    ) -> pb.GetSuggestionStatsResponse:
        library_id = parse_library_id(request.library_id)
        async with self._database.snapshot() as tx:
            states = await count_by_state(tx, library_id)
            persons = await count_by_person(tx, library_id)
        return pb.GetSuggestionStatsResponse(
            pending=states[SuggestionState.PENDING],
            accepted=states[SuggestionState.ACCEPTED],
            rejected=states[SuggestionState.REJECTED],
            expired=states[SuggestionState.EXPIRED],
            persons=[to_person_stats(counts) for counts in persons],
        )

    async def AcceptSuggestion(
        self, request: pb.AcceptSuggestionRequest, context: Context
    ) -> pb.AcceptSuggestionResponse:
        command = _read_answer(request)

        async def first(_caller: Caller) -> AnswerBegun:
            return await begin_accept(self._database, self._persons, command)

        async def work(tx: Transaction, caller: Caller, begun: AnswerBegun) -> pb.AcceptSuggestionResponse:
            made = await finish_accept(tx, self._deps, command, caller, begun)
            return pb.AcceptSuggestionResponse(suggestion=to_suggestion(made.suggestion), change_id=made.change_id)

        return await self._mutations.run_after(request, pb.AcceptSuggestionResponse, first, work)

    async def RejectSuggestion(
        self, request: pb.RejectSuggestionRequest, context: Context
    ) -> pb.RejectSuggestionResponse:
        command = _read_answer(request)

        async def first(_caller: Caller) -> AnswerBegun:
            return await begin_reject(self._database, self._persons, command)

        async def work(tx: Transaction, caller: Caller, begun: AnswerBegun) -> pb.RejectSuggestionResponse:
            made = await finish_reject(tx, self._deps, command, caller, begun)
            return pb.RejectSuggestionResponse(suggestion=to_suggestion(made.suggestion), change_id=made.change_id)

        return await self._mutations.run_after(request, pb.RejectSuggestionResponse, first, work)


def _read_answer(request: pb.AcceptSuggestionRequest | pb.RejectSuggestionRequest) -> AnswerSuggestion:
    return AnswerSuggestion(
        library_id=parse_library_id(request.library_id),
        suggestion_id=parse_uuid(request.suggestion_id, "suggestion_id"),
        etag=request.etag,
    )
