"""DiscoveryService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.suggestions.v1 import discovery_pb2 as pb
from kith.suggestions.v1 import discovery_pb2_grpc
from services.suggestions.convert import from_method, read_confidence
from services.suggestions.domain.discovering import FindMore, start_find_more
from services.suggestions.domain.model import SuggestionMethod, SuggestionsDeps
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_job
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]

MAX_PERSONS = 500
MAX_PER_PERSON = 1000
# What one search by centroid can find.
MAX_BY_CENTROID = 500


class DiscoveryServicer(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Finds faces to ask about."""

    def __init__(self, mutations: Mutations, deps: SuggestionsDeps) -> None:
        self._mutations = mutations
        self._deps = deps

    async def FindMoreSuggestions(
        self, request: pb.FindMoreSuggestionsRequest, context: Context
    ) -> pb.FindMoreSuggestionsResponse:
        settings = self._deps.settings
        if len(request.person_ids) > MAX_PERSONS:
            raise InvalidRequest(f"person_ids must have at most {MAX_PERSONS} entries", field="person_ids")
        if not 0 <= request.max_per_person <= MAX_PER_PERSON:
            raise InvalidRequest(f"max_per_person must be 0..{MAX_PER_PERSON}", field="max_per_person")
        method = from_method(request.method)
        if method is SuggestionMethod.CENTROID and request.max_per_person > MAX_BY_CENTROID:
            raise InvalidRequest(f"max_per_person must be 0..{MAX_BY_CENTROID} by CENTROID", field="max_per_person")
        given = request.HasField("min_confidence")
        persons = [parse_uuid(person_id, f"person_ids[{at}]") for at, person_id in enumerate(request.person_ids)]
        command = FindMore(
            library_id=parse_library_id(request.library_id),
            person_ids=list(dict.fromkeys(persons)),
            method=method,
            max_per_person=request.max_per_person or settings.max_per_person,
            min_confidence=read_confidence(request.min_confidence) if given else settings.min_confidence,
        )

        async def work(tx: Transaction, caller: Caller) -> pb.FindMoreSuggestionsResponse:
            job = await start_find_more(tx, self._deps, command, caller)
            return pb.FindMoreSuggestionsResponse(job=to_job(job, self._deps.clock.now()))

        return await self._mutations.run(request, pb.FindMoreSuggestionsResponse, work)
