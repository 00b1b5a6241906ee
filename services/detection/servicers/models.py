"""ModelService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.detection.v1 import models_pb2 as pb
from kith.detection.v1 import models_pb2_grpc
from services.detection.convert.migrations import from_move, to_migration, to_model
from services.detection.domain.migrating import cut_over, find_next_model, read_coverage, roll_back, start_migration
from services.detection.domain.migration import Migration
from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.domain.ports import ModelFleets, VectorCollections
from services.detection.repository.migrations import get_migration
from services.detection.repository.models import list_models
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_uuid
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """The embedding models of a library."""

    def __init__(
        self,
        database: Database,
        mutations: Mutations,
        deps: DetectionDeps,
        fleets: ModelFleets,
        collections: VectorCollections,
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._fleets = fleets
        self._collections = collections

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        library_id = parse_library_id(request.library_id)
        async with self._database.transaction() as tx:
            found = await list_models(tx, library_id)
        return pb.ListModelsResponse(models=[to_model(model) for model in found])

    async def StartModelMigration(
        self, request: pb.StartModelMigrationRequest, context: Context
    ) -> pb.StartModelMigrationResponse:
        library_id = parse_library_id(request.library_id)
        if not request.to_model_version:
            raise InvalidRequest("to_model_version is required", field="to_model_version")

        async def first(caller: Caller) -> PackDescription:
            return await find_next_model(self._fleets, self._collections, library_id, request.to_model_version)

        async def work(tx: Transaction, caller: Caller, pack: PackDescription) -> pb.StartModelMigrationResponse:
            started = await start_migration(tx, self._deps, library_id, pack, caller)
            return pb.StartModelMigrationResponse(migration=await self._message(tx, started))

        return await self._mutations.run_after(request, pb.StartModelMigrationResponse, first, work)

    async def GetModelMigration(
        self, request: pb.GetModelMigrationRequest, context: Context
    ) -> pb.GetModelMigrationResponse:
        library_id = parse_library_id(request.library_id)
        migration_id = parse_uuid(request.migration_id, "migration_id")
        async with self._database.snapshot() as tx:
            found = await get_migration(tx, library_id, migration_id)
            return pb.GetModelMigrationResponse(migration=await self._message(tx, found))

    async def CutOverModel(self, request: pb.CutOverModelRequest, context: Context) -> pb.CutOverModelResponse:
        command = from_move(request)

        async def work(tx: Transaction, caller: Caller) -> pb.CutOverModelResponse:
            moved = await cut_over(tx, self._deps, command)
            return pb.CutOverModelResponse(migration=await self._message(tx, moved))

        return await self._mutations.run(request, pb.CutOverModelResponse, work)

    async def RollBackModel(self, request: pb.RollBackModelRequest, context: Context) -> pb.RollBackModelResponse:
        command = from_move(request)

        async def work(tx: Transaction, caller: Caller) -> pb.RollBackModelResponse:
            moved = await roll_back(tx, command)
            return pb.RollBackModelResponse(migration=await self._message(tx, moved))

        return await self._mutations.run(request, pb.RollBackModelResponse, work)

    async def _message(self, tx: Transaction, migration: Migration) -> pb.ModelMigration:
        return to_migration(migration, await read_coverage(tx, migration), self._deps.clock.now())
