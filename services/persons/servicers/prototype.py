"""PrototypeService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.persons.v1 import prototypes_pb2 as pb
from kith.persons.v1 import prototypes_pb2_grpc
from services.persons.convert import to_prototype
from services.persons.repository.persons import get_person
from services.persons.repository.prototypes import list_prototypes
from shared.db.engine import Database
from shared.ids import parse_library_id, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]


class PrototypeServicer(prototypes_pb2_grpc.PrototypeServiceServicer):
    """The exemplar faces a person is recognised by."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListPrototypes(self, request: pb.ListPrototypesRequest, context: Context) -> pb.ListPrototypesResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")
        async with self._database.snapshot() as tx:
            await get_person(tx, library_id, person_id)
            found = await list_prototypes(tx, [person_id])
        return pb.ListPrototypesResponse(prototypes=[to_prototype(prototype) for prototype in found])
