"""MatcherService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.persons.v1 import matcher_pb2 as pb
from kith.persons.v1 import matcher_pb2_grpc
from services.persons.convert_matcher import to_matcher
from services.persons.domain.model import PersonsDeps
from services.persons.domain.training import TrainMatcher, activate_matcher, start_training
from services.persons.repository.matchers import get_active_matcher, get_matcher, list_matchers
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.errors import NotFound
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_job
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]


class MatcherServicer(matcher_pb2_grpc.MatcherServiceServicer):
    """Learns how to tell a library's people apart, from what humans confirmed."""

    def __init__(self, database: Database, mutations: Mutations, deps: PersonsDeps) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps

    async def TrainMatcher(self, request: pb.TrainMatcherRequest, context: Context) -> pb.TrainMatcherResponse:
        settings = self._deps.settings
        command = TrainMatcher(
            library_id=parse_library_id(request.library_id),
            activate_if_better=request.activate_if_better,
            recluster_after=request.recluster_after,
            seed=settings.matcher_seed,
            epochs=settings.matcher_epochs,
        )

        async def work(tx: Transaction, caller: Caller) -> pb.TrainMatcherResponse:
            job = await start_training(tx, self._deps, command, caller)
            return pb.TrainMatcherResponse(job=to_job(job, self._deps.clock.now()))

        return await self._mutations.run(request, pb.TrainMatcherResponse, work)

    async def GetMatcher(self, request: pb.GetMatcherRequest, context: Context) -> pb.GetMatcherResponse:
        library_id = parse_library_id(request.library_id)
        matcher_id = parse_uuid(request.matcher_id, "matcher_id") if request.matcher_id else None
        async with self._database.transaction() as tx:
            if matcher_id is not None:
                found = await get_matcher(tx, library_id, matcher_id)
            else:
                active = await get_active_matcher(tx, library_id)
                if active is None:
                    raise NotFound("matcher", "active")
                found = active
        return pb.GetMatcherResponse(matcher=to_matcher(found))

    async def ListMatchers(self, request: pb.ListMatchersRequest, context: Context) -> pb.ListMatchersResponse:
        library_id = parse_library_id(request.library_id)
        page = read_page_request(request.page_size, request.page_token, default=50, maximum=500, filters=library_id)
        async with self._database.transaction() as tx:
            found = await list_matchers(tx, library_id, page)
        return pb.ListMatchersResponse(
            matchers=[to_matcher(matcher) for matcher in found.items], next_page_token=found.next_token
        )

    async def ActivateMatcher(self, request: pb.ActivateMatcherRequest, context: Context) -> pb.ActivateMatcherResponse:
        library_id = parse_library_id(request.library_id)
        matcher_id = parse_uuid(request.matcher_id, "matcher_id") if request.matcher_id else None

        async def work(tx: Transaction, caller: Caller) -> pb.ActivateMatcherResponse:
            made = await activate_matcher(tx, self._deps, library_id, matcher_id, caller)
            return pb.ActivateMatcherResponse(
                matcher=to_matcher(made.matcher) if made.matcher else None, change_id=str(made.change_id or "")
            )

        return await self._mutations.run(request, pb.ActivateMatcherResponse, work)
