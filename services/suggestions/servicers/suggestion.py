"""SuggestionService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.suggestions.v1 import suggestions_pb2 as pb
from kith.suggestions.v1 import suggestions_pb2_grpc
from services.suggestions.convert import from_states, read_confidence, to_candidate, to_suggestion
from services.suggestions.domain.explaining import explain_suggestion
from services.suggestions.domain.matching import match_face
from services.suggestions.domain.model import SuggestionsDeps
from services.suggestions.domain.ports import Assignments, PersonSearch
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
    get_suggestion,
    list_suggestions,
)
from services.suggestions.servicers.groups import list_groups
from services.suggestions.servicers.review import get_suggestion_stats, lease_review_queue, review_suggestions
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest
from shared.ids import parse_cluster_id, parse_library_id, parse_uuid
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]

USUAL_CANDIDATES = 5
MAX_CANDIDATES = 50


class SuggestionServicer(suggestions_pb2_grpc.SuggestionServiceServicer):
    """Questions to people, and their answers."""

    def __init__(
        self,
        database: Database,
        mutations: Mutations,
        deps: SuggestionsDeps,
        persons: Assignments,
        people: PersonSearch,
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._persons = persons
        self._people = people

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

    async def ListSuggestionGroups(
        self, request: pb.ListSuggestionGroupsRequest, context: Context
    ) -> pb.ListSuggestionGroupsResponse:
        return await list_groups(self._database, request)

    async def GetSuggestionStats(
        self, request: pb.GetSuggestionStatsRequest, context: Context
    ) -> pb.GetSuggestionStatsResponse:
        return await get_suggestion_stats(self._database, self._deps, request)

    async def MatchFace(self, request: pb.MatchFaceRequest, context: Context) -> pb.MatchFaceResponse:
        library_id = parse_library_id(request.library_id)
        face_id = parse_uuid(request.face_id, "face_id")
        if not 0 <= request.limit <= MAX_CANDIDATES:
            raise InvalidRequest(f"limit must be 0..{MAX_CANDIDATES}", field="limit")
        limit = request.limit or USUAL_CANDIDATES
        found = await match_face(self._database, self._deps, self._people, library_id, face_id, limit)
        return pb.MatchFaceResponse(candidates=[to_candidate(match) for match in found])

    async def ExplainSuggestion(
        self, request: pb.ExplainSuggestionRequest, context: Context
    ) -> pb.ExplainSuggestionResponse:
        library_id = parse_library_id(request.library_id)
        suggestion_id = parse_uuid(request.suggestion_id, "suggestion_id")
        found = await explain_suggestion(self._database, self._deps, self._people, library_id, suggestion_id)
        return pb.ExplainSuggestionResponse(suggestion=to_suggestion(found.suggestion), today=to_candidate(found.today))

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

    async def BatchReviewSuggestions(
        self, request: pb.BatchReviewSuggestionsRequest, context: Context
    ) -> pb.BatchReviewSuggestionsResponse:
        return await review_suggestions(self._database, self._mutations, self._deps, self._persons, request)

    async def LeaseReviewQueue(
        self, request: pb.LeaseReviewQueueRequest, context: Context
    ) -> pb.LeaseReviewQueueResponse:
        return await lease_review_queue(self._mutations, self._deps, request)


def _read_answer(request: pb.AcceptSuggestionRequest | pb.RejectSuggestionRequest) -> AnswerSuggestion:
    return AnswerSuggestion(
        library_id=parse_library_id(request.library_id),
        suggestion_id=parse_uuid(request.suggestion_id, "suggestion_id"),
        etag=request.etag,
    )
