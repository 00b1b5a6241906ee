"""FaceService."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import grpc

from kith.detection.v1 import faces_pb2 as pb
from kith.detection.v1 import faces_pb2_grpc
from services.detection.convert.faces import (
    from_crop_format,
    from_list_request,
    from_margin,
    to_embedding,
    to_face,
    to_stats,
)
from services.detection.domain.cropping import DEFAULT_SIZE, CropStyle, cut_face
from services.detection.domain.looking import FaceFinder
from services.detection.repository.assets import get_asset
from services.detection.repository.faces import count_faces, get_face, get_faces, list_faces, read_embeddings
from shared.config import DetectionSettings
from shared.db.engine import Database
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]

MAX_BATCH = 500


class FaceServicer(faces_pb2_grpc.FaceServiceServicer):
    """The faces of a library."""

    def __init__(self, database: Database, finder: FaceFinder, threads: Executor, settings: DetectionSettings) -> None:
        self._database = database
        self._finder = finder
        self._threads = threads
        self._settings = settings

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

    async def GetFaceCrop(self, request: pb.GetFaceCropRequest, context: Context) -> pb.GetFaceCropResponse:
        library_id, face_id = parse_library_id(request.library_id), parse_uuid(request.face_id, "face_id")
        style = CropStyle(
            size=request.size or DEFAULT_SIZE,
            margin=from_margin(request, self._settings),
            square=request.square,
            format=from_crop_format(request.format),
        )
        async with self._database.snapshot() as tx:
            face = await get_face(tx, library_id, face_id)
            asset = await get_asset(tx, library_id, face.asset_id)
        crop = await cut_face(self._finder, self._threads, asset.uri, face.box, style)
        return pb.GetFaceCropResponse(
            content=crop.content,
            media_type=f"image/{style.format.value}",
            width=crop.width,
            height=crop.height,
        )

    async def GetFaceStats(self, request: pb.GetFaceStatsRequest, context: Context) -> pb.GetFaceStatsResponse:
        library_id = parse_library_id(request.library_id)
        async with self._database.snapshot() as tx:
            return to_stats(await count_faces(tx, library_id))
