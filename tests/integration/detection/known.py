"""Photos that were looked at, and the calls of FaceService that tests make often."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from numpy.typing import NDArray

from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2, faces_pb2, sessions_pb2
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from shared.vectors.relay import Relay
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.handlers import build_executor, open_looker


async def look(
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
    *,
    redetect: bool = False,
    asset_ids: Sequence[str] | None = None,
) -> sessions_pb2.DetectionSession:
    """A session, run here, with what it stored brought to Qdrant."""
    session = await detection.create_session(asset_ids, redetect=redetect)
    looker = open_looker(base, stack, running.settings.services.detection)
    await build_executor(base, looker).run_slice(UUID(session.job.id), 0)
    await relay(base)
    return await detection.get_session(session.id)


async def look_at_album(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album, photos: int
) -> list[faces_pb2.Face]:
    """The faces of the first photos of the album, which are ``photo-0`` and so on."""
    await detection.register({f"photo-{number}": album.uri(number) for number in range(photos)})
    await look(detection, running, base, stack)
    return await detection.list_faces()


async def relay(base: Foundation) -> None:
    """Bring what is queued to Qdrant."""
    settings = base.settings.relay
    working = Relay(base.database, base.qdrant, base.collections, base.listener, base.clock, settings, base.metrics)
    while await working.relay_batch():
        pass


async def add_face(
    detection: DetectionClient, asset_id: str, box: types_pb2.BoundingBox, request_id: str = ""
) -> faces_pb2.Face:
    """Draw a box."""
    request = faces_pb2.AddFaceRequest(asset_id=asset_id, box=box, request_id=request_id or str(uuid4()))
    async with translate_errors("detection"):
        return (await detection.faces.AddFace(request)).face


async def set_state(
    detection: DetectionClient, face_id: str, state: faces_pb2.FaceState.ValueType, *paths: str
) -> faces_pb2.Face:
    """Say what a face is; ``paths`` are the mask's, if not the right one."""
    request = faces_pb2.UpdateFaceRequest(
        face=faces_pb2.Face(id=face_id, state=state), update_mask=FieldMask(paths=paths or ["state"])
    )
    async with translate_errors("detection"):
        return (await detection.faces.UpdateFace(request)).face


async def get_face(detection: DetectionClient, face_id: str) -> faces_pb2.Face:
    async with translate_errors("detection"):
        return (await detection.faces.GetFace(faces_pb2.GetFaceRequest(face_id=face_id))).face


async def get_asset(detection: DetectionClient, asset_id: str) -> assets_pb2.Asset:
    async with translate_errors("detection"):
        return (await detection.assets.GetAsset(assets_pb2.GetAssetRequest(asset_id=asset_id))).asset


async def read_vectors(detection: DetectionClient, face_ids: Sequence[str]) -> NDArray[np.float32]:
    """Stored embeddings of these faces: (faces, dimension)."""
    request = faces_pb2.BatchGetFacesRequest(face_ids=face_ids, include_embeddings=True)
    answer = await detection.faces.BatchGetFaces(request)
    return np.array([answer.embeddings[face_id].values for face_id in face_ids], np.float32)
