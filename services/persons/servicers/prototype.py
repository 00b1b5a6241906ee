"""PrototypeService."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc

from kith.persons.v1 import prototypes_pb2 as pb
from kith.persons.v1 import prototypes_pb2_grpc
from services.persons.convert import to_era_coverage, to_prototype
from services.persons.domain.choosing import (
    ChoosePrototype,
    PrototypeChosen,
    choose_prototype,
    cover_eras,
    recompute_prototypes,
)
from services.persons.domain.model import PersonsDeps
from services.persons.repository.persons import get_person
from services.persons.repository.prototypes import list_prototypes
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.faces.prototypes import Choice
from shared.ids import parse_library_id, parse_uuid
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]
Word = pb.CreatePrototypeRequest | pb.DeletePrototypeRequest | pb.PinPrototypeRequest | pb.UnpinPrototypeRequest
Chosen = TypeVar("Chosen", pb.CreatePrototypeResponse, pb.PinPrototypeResponse, pb.UnpinPrototypeResponse)


class PrototypeServicer(prototypes_pb2_grpc.PrototypeServiceServicer):
    """The exemplar faces a person is recognised by."""

    def __init__(self, database: Database, mutations: Mutations, deps: PersonsDeps) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps

    async def ListPrototypes(self, request: pb.ListPrototypesRequest, context: Context) -> pb.ListPrototypesResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")
        async with self._database.snapshot() as tx:
            await get_person(tx, library_id, person_id)
            found = await list_prototypes(tx, [person_id])
        return pb.ListPrototypesResponse(prototypes=[to_prototype(prototype) for prototype in found])

    async def CreatePrototype(self, request: pb.CreatePrototypeRequest, context: Context) -> pb.CreatePrototypeResponse:
        return await self._choose(request, pb.CreatePrototypeResponse, Choice.CHOSEN)

    async def DeletePrototype(self, request: pb.DeletePrototypeRequest, context: Context) -> pb.DeletePrototypeResponse:
        command = _read_word(request, Choice.REFUSED)

        async def work(tx: Transaction, caller: Caller) -> pb.DeletePrototypeResponse:
            made = await choose_prototype(tx, self._deps, command, caller)
            return pb.DeletePrototypeResponse(change_id=str(made.change_id or ""))

        return await self._mutations.run(request, pb.DeletePrototypeResponse, work)

    async def PinPrototype(self, request: pb.PinPrototypeRequest, context: Context) -> pb.PinPrototypeResponse:
        return await self._choose(request, pb.PinPrototypeResponse, Choice.PINNED)

    async def UnpinPrototype(self, request: pb.UnpinPrototypeRequest, context: Context) -> pb.UnpinPrototypeResponse:
        return await self._choose(request, pb.UnpinPrototypeResponse, None)

    async def RecomputePrototypes(
        self, request: pb.RecomputePrototypesRequest, context: Context
    ) -> pb.RecomputePrototypesResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")

        async def work(tx: Transaction, caller: Caller) -> pb.RecomputePrototypesResponse:
            chosen = await recompute_prototypes(tx, self._deps, library_id, person_id)
            return pb.RecomputePrototypesResponse(prototypes=[to_prototype(prototype) for prototype in chosen])

        return await self._mutations.run(request, pb.RecomputePrototypesResponse, work)

    async def GetEraCoverage(self, request: pb.GetEraCoverageRequest, context: Context) -> pb.GetEraCoverageResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")
        async with self._database.snapshot() as tx:
            eras = await cover_eras(tx, library_id, person_id)
        return pb.GetEraCoverageResponse(eras=[to_era_coverage(coverage) for coverage in eras])

    async def _choose(self, request: Word, answer_type: type[Chosen], choice: Choice | None) -> Chosen:
        command = _read_word(request, choice)

        async def work(tx: Transaction, caller: Caller) -> Chosen:
            made: PrototypeChosen = await choose_prototype(tx, self._deps, command, caller)
            prototype = to_prototype(made.prototype) if made.prototype else None
            return answer_type(prototype=prototype, change_id=str(made.change_id or ""))

        return await self._mutations.run(request, answer_type, work)


def _read_word(request: Word, choice: Choice | None) -> ChoosePrototype:
    return ChoosePrototype(parse_library_id(request.library_id), parse_uuid(request.face_id, "face_id"), choice)
