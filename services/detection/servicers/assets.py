"""AssetService."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Any

import grpc

from kith.detection.v1 import assets_pb2 as pb
from kith.detection.v1 import assets_pb2_grpc
from services.detection.convert.assets import from_detection, from_new_asset, to_asset
from services.detection.convert.times import from_range
from services.detection.domain.model import DetectionDeps, NewAsset
from services.detection.domain.registering import check_batch, register_assets
from services.detection.domain.removing import check_ids, delete_assets
from services.detection.repository.assets import get_asset, list_assets
from shared.caller import Caller
from shared.config import ImageSettings
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.errors import FieldViolation, InvalidRequest
from shared.ids import parse_asset_id, parse_library_id
from shared.imaging.roots import PhotoRoots
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]


class AssetServicer(assets_pb2_grpc.AssetServiceServicer):
    """The photos of a library."""

    def __init__(
        self,
        database: Database,
        mutations: Mutations,
        deps: DetectionDeps,
        images: ImageSettings,
        threads: Executor,
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._roots = PhotoRoots(images.roots)
        self._threads = threads

    async def RegisterAssets(self, request: pb.RegisterAssetsRequest, context: Context) -> pb.RegisterAssetsResponse:
        library_id = parse_library_id(request.library_id)
        new = [from_new_asset(asset, f"assets[{index}]") for index, asset in enumerate(request.assets)]
        check_batch(new)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, check_uris, new, self._roots)

        async def work(tx: Transaction, caller: Caller) -> pb.RegisterAssetsResponse:
            made = await register_assets(tx, self._deps, library_id, new)
            return pb.RegisterAssetsResponse(
                assets=[to_asset(asset) for asset in made.assets], created_count=made.created
            )

        return await self._mutations.run(request, pb.RegisterAssetsResponse, work)

    async def DeleteAssets(self, request: pb.DeleteAssetsRequest, context: Context) -> pb.DeleteAssetsResponse:
        library_id = parse_library_id(request.library_id)
        asset_ids = [
            parse_asset_id(asset_id, f"asset_ids[{index}]") for index, asset_id in enumerate(request.asset_ids)
        ]
        check_ids(asset_ids)

        async def work(tx: Transaction, caller: Caller) -> pb.DeleteAssetsResponse:
            gone = await delete_assets(tx, self._deps, library_id, asset_ids)
            return pb.DeleteAssetsResponse(assets_deleted=gone.assets, faces_deleted=gone.faces)

        return await self._mutations.run(request, pb.DeleteAssetsResponse, work)

    async def GetAsset(self, request: pb.GetAssetRequest, context: Context) -> pb.GetAssetResponse:
        library_id, asset_id = parse_library_id(request.library_id), parse_asset_id(request.asset_id)
        async with self._database.transaction() as tx:
            return pb.GetAssetResponse(asset=to_asset(await get_asset(tx, library_id, asset_id)))

    async def ListAssets(self, request: pb.ListAssetsRequest, context: Context) -> pb.ListAssetsResponse:
        library_id = parse_library_id(request.library_id)
        captured = from_range(request.captured, "captured")
        detections = tuple(
            from_detection(value, f"detections[{index}]") for index, value in enumerate(request.detections)
        )
        page = read_page_request(
            request.page_size,
            request.page_token,
            default=100,
            maximum=1000,
            filters=(library_id, detections, captured),
        )
        async with self._database.transaction() as tx:
            found = await list_assets(tx, library_id, page, detections, captured)
        return pb.ListAssetsResponse(
            assets=[to_asset(asset) for asset in found.items], next_page_token=found.next_token
        )


def check_uris(assets: list[NewAsset], roots: PhotoRoots) -> None:
    """Raise :class:`InvalidRequest` (URI_NOT_ALLOWED) naming every uri that may not be read. Looks at the file system."""
    refusals: list[tuple[FieldViolation, InvalidRequest]] = []
    for index, asset in enumerate(assets):
        try:
            roots.resolve(asset.uri)
        except InvalidRequest as error:
            refusals.append((FieldViolation(f"assets[{index}].uri", error.message), error))
    if refusals:
        first = refusals[0][1]
        raise InvalidRequest(
            first.message,
            reason=first.reason,
            metadata=first.metadata,
            violations=[violation for violation, _ in refusals],
        )
