"""CentroidService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.clustering.v1 import centroids_pb2 as pb
from kith.clustering.v1 import centroids_pb2_grpc
from services.clustering.convert import from_person_ids, from_search, to_centroid, to_match
from services.clustering.domain.averaging import compute_stale, drop_centroids, store_computed
from services.clustering.domain.model import ActiveModel, ClusteringDeps, Computation
from services.clustering.domain.ports import UnassignedFaces
from services.clustering.domain.searching import search_by_centroid
from services.clustering.repository.centroids import list_centroids, list_centroids_of, require_persons
from services.clustering.repository.unassigned import find_active_model
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.ids import parse_library_id, parse_uuid
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]


class CentroidServicer(centroids_pb2_grpc.CentroidServiceServicer):
    """The robust mean of each person's embeddings."""

    def __init__(self, database: Database, mutations: Mutations, deps: ClusteringDeps, index: UnassignedFaces) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._index = index

    async def ComputeCentroids(
        self, request: pb.ComputeCentroidsRequest, context: Context
    ) -> pb.ComputeCentroidsResponse:
        library_id = parse_library_id(request.library_id)
        person_ids = from_person_ids(request.person_ids)

        async def first(caller: Caller) -> tuple[ActiveModel, Computation] | None:
            async with self._database.transaction() as tx:
                await require_persons(tx, library_id, person_ids)
                model = await find_active_model(tx, library_id)
            if model is None:
                return None
            return model, await compute_stale(self._database, model, person_ids, force=request.force)

        async def work(
            tx: Transaction, caller: Caller, begun: tuple[ActiveModel, Computation] | None
        ) -> pb.ComputeCentroidsResponse:
            if begun is None:
                return pb.ComputeCentroidsResponse()
            model, computation = begun
            stored = await store_computed(tx, self._deps, library_id, model, computation)
            found = await list_centroids_of(tx, library_id, model, person_ids)
            return pb.ComputeCentroidsResponse(
                centroids=[to_centroid(centroid) for centroid in found], persons_computed=stored
            )

        return await self._mutations.run_after(request, pb.ComputeCentroidsResponse, first, work)

    async def ListCentroids(self, request: pb.ListCentroidsRequest, context: Context) -> pb.ListCentroidsResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id") if request.person_id else None
        page = read_page_request(
            request.page_size, request.page_token, default=100, maximum=1000, filters=(library_id, person_id)
        )
        async with self._database.snapshot() as tx:
            model = await find_active_model(tx, library_id)
            if model is None:
                return pb.ListCentroidsResponse()
            found = await list_centroids(tx, library_id, model, page, person_id)
        return pb.ListCentroidsResponse(
            centroids=[to_centroid(centroid) for centroid in found.items], next_page_token=found.next_token
        )

    async def SearchByCentroid(
        self, request: pb.SearchByCentroidRequest, context: Context
    ) -> pb.SearchByCentroidResponse:
        matches = await search_by_centroid(self._database, self._deps, self._index, from_search(request))
        return pb.SearchByCentroidResponse(matches=[to_match(match) for match in matches])

    async def DeleteCentroids(self, request: pb.DeleteCentroidsRequest, context: Context) -> pb.DeleteCentroidsResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")

        async def work(tx: Transaction, caller: Caller) -> pb.DeleteCentroidsResponse:
            return pb.DeleteCentroidsResponse(deleted_count=await drop_centroids(tx, self._deps, library_id, person_id))

        return await self._mutations.run(request, pb.DeleteCentroidsResponse, work)
