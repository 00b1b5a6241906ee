"""FaceService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Any
from uuid import UUID

import grpc

from kith.detection.v1 import faces_pb2 as pb
from kith.detection.v1 import faces_pb2_grpc
from services.detection.convert.faces import (
    from_crop_format,
    from_list_request,
    from_margin,
    from_search_request,
    from_update_request,
    to_embedding,
    to_face,
    to_match,
    to_stats,
)
from services.detection.convert.geometry import from_box
from services.detection.convert.importing import to_import_response
from services.detection.domain.adding import AddFace, MeasuredFace, add_face, measure_face
from services.detection.domain.cropping import DEFAULT_SIZE, Crop, CropStyle, cut_face
from services.detection.domain.crops import CropCache, CropKey
from services.detection.domain.looking import FaceFinder
from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.domain.ports import FaceSearch
from services.detection.domain.searching import Looking, search_faces
from services.detection.domain.updating import set_face_state
from services.detection.repository.assets import get_asset
from services.detection.repository.faces import (
    count_faces,
    find_present,
    get_face,
    get_faces,
    list_faces,
    read_embeddings,
)
from services.detection.servicers.importing import FaceImports
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest
from shared.ids import parse_asset_id, parse_library_id, parse_uuid
from shared.rpc.ambient import current_principal, time_left
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]

MAX_BATCH = 500


class FaceServicer(faces_pb2_grpc.FaceServiceServicer):
    """The faces of a library."""

    def __init__(
        self,
        database: Database,
        mutations: Mutations,
        deps: DetectionDeps,
        finder: FaceFinder,
        pack: PackDescription,
        index: FaceSearch,
        crops: CropCache,
        threads: Executor,
        imports: FaceImports,
    ) -> None:
        """``pack`` is what ``finder`` runs; crops are cut in ``threads``."""
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._finder = finder
        self._pack = pack
        self._index = index
        self._crops = crops
        self._threads = threads
        self._imports = imports

    async def GetFace(self, request: pb.GetFaceRequest, context: Context) -> pb.GetFaceResponse:
        library_id, face_id = parse_library_id(request.library_id), parse_uuid(request.face_id, "face_id")
        async with self._database.transaction() as tx:
            return pb.GetFaceResponse(face=to_face(await get_face(tx, library_id, face_id)))

    async def BatchGetFaces(self, request: pb.BatchGetFacesRequest, context: Context) -> pb.BatchGetFacesResponse:
        library_id = parse_library_id(request.library_id)
        if not 1 <= len(request.face_ids) <= MAX_BATCH:
            raise InvalidRequest(f"face_ids must hold 1..{MAX_BATCH} ids", field="face_ids")
        face_ids = [parse_uuid(face_id, f"face_ids[{index}]") for index, face_id in enumerate(request.face_ids)]
        async with self._database.snapshot() as tx:
            found = await get_faces(tx, library_id, face_ids)
            embeddings = await read_embeddings(tx, library_id, face_ids) if request.include_embeddings else {}
        return pb.BatchGetFacesResponse(
            faces=[to_face(found[face_id]) for face_id in face_ids if face_id in found],
            missing_ids=[str(face_id) for face_id in face_ids if face_id not in found],
            embeddings={str(face_id): to_embedding(stored) for face_id, stored in embeddings.items()},
        )

    async def ListFaces(self, request: pb.ListFacesRequest, context: Context) -> pb.ListFacesResponse:
        library_id = parse_library_id(request.library_id)
        where = from_list_request(request)
        page = read_page_request(
            request.page_size, request.page_token, default=100, maximum=1000, filters=(library_id, where)
        )
        async with self._database.transaction() as tx:
            found = await list_faces(tx, library_id, page, where)
        return pb.ListFacesResponse(faces=[to_face(face) for face in found.items], next_page_token=found.next_token)

    async def SearchFaces(self, request: pb.SearchFacesRequest, context: Context) -> pb.SearchFacesResponse:
        command = from_search_request(request)
        found = await search_faces(self._database, self._index, self._looking(context), command)
        return pb.SearchFacesResponse(matches=[to_match(match) for match in found])

    async def AddFace(self, request: pb.AddFaceRequest, context: Context) -> pb.AddFaceResponse:
        command = AddFace(parse_library_id(request.library_id), parse_asset_id(request.asset_id), from_box(request.box))
        looking = self._looking(context)

        async def measure(caller: Caller) -> MeasuredFace:
            return await measure_face(self._database, looking, command)

        async def work(tx: Transaction, caller: Caller, measured: MeasuredFace) -> pb.AddFaceResponse:
            made = await add_face(tx, self._deps, self._pack, command, measured)
            return pb.AddFaceResponse(face=to_face(made))

        return await self._mutations.run_after(request, pb.AddFaceResponse, measure, work)

    async def UpdateFace(self, request: pb.UpdateFaceRequest, context: Context) -> pb.UpdateFaceResponse:
        library_id = parse_library_id(request.library_id)
        face_id, state = from_update_request(request)

        async def work(tx: Transaction, caller: Caller) -> pb.UpdateFaceResponse:
            face = await set_face_state(tx, self._deps, library_id, face_id, state)
            return pb.UpdateFaceResponse(face=to_face(face))

        return await self._mutations.run(request, pb.UpdateFaceResponse, work)

    async def GetFaceCrop(self, request: pb.GetFaceCropRequest, context: Context) -> pb.GetFaceCropResponse:
        library_id, face_id = parse_library_id(request.library_id), parse_uuid(request.face_id, "face_id")
        style = CropStyle(
            size=request.size or DEFAULT_SIZE,
            margin=from_margin(request, self._deps.settings),
            square=request.square,
            format=from_crop_format(request.format),
        )
        async with self._database.snapshot() as tx:
            face = await get_face(tx, library_id, face_id)
            asset = await get_asset(tx, library_id, face.asset_id)

        async def cut() -> Crop:
            made = await cut_face(self._finder, self._threads, asset.uri, face.box, style)
            # Looked up again, so that no crop is kept of a face that went before the cutting began.
            async with self._database.transaction() as tx:
                await get_face(tx, library_id, face_id)
            return made

        crop = await self._crops.get(CropKey(face_id, asset.uri, asset.updated_at, face.box, style), cut)
        return pb.GetFaceCropResponse(
            content=crop.content,
            media_type=f"image/{style.format.value}",
            width=crop.width,
            height=crop.height,
        )

    async def ImportFaces(
        self, request_iterator: AsyncIterator[pb.ImportFacesRequest], context: Context
    ) -> pb.ImportFacesResponse:
        return to_import_response(await self._imports.take_in(request_iterator))

    async def SweepCrops(self, request: pb.SweepCropsRequest, context: Context) -> pb.SweepCropsResponse:
        dropped = self._crops.drop(await self._list_gone())
        return pb.SweepCropsResponse(dropped_count=dropped, left_count=len(await self._list_gone()))

    async def GetFaceStats(self, request: pb.GetFaceStatsRequest, context: Context) -> pb.GetFaceStatsResponse:
        library_id = parse_library_id(request.library_id)
        async with self._database.snapshot() as tx:
            return to_stats(await count_faces(tx, library_id))

    async def _list_gone(self) -> set[UUID]:
        """Faces with a crop in memory that are in no library any more."""
        cut = self._crops.list_faces()
        async with self._database.transaction() as tx:
            return cut - await find_present(tx, cut)

    def _looking(self, context: Context) -> Looking:
        lane = f"{current_principal().subject} {context.peer()}"
        return Looking(self._finder, self._pack, lane, patience_s=time_left())
