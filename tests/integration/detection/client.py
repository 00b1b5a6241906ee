"""The detection server as tests call it, and the stores as they look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

import grpc.aio
from qdrant_client import models as qdrant
from sqlalchemy import func, select

from kith.detection.v1 import (
    assets_pb2,
    assets_pb2_grpc,
    detection_pb2_grpc,
    doctor_pb2,
    doctor_pb2_grpc,
    faces_pb2,
    faces_pb2_grpc,
    models_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from shared.db.outbox import count_waiting
from shared.db.tables_detection import face_embeddings, models
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import eventually


class DetectionClient:
    """The stubs of the detection server, and calls that tests make often."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.detection = detection_pb2_grpc.DetectionServiceStub(channel)
        self.assets = assets_pb2_grpc.AssetServiceStub(channel)
        self.faces = faces_pb2_grpc.FaceServiceStub(channel)
        self.sessions = sessions_pb2_grpc.DetectionSessionServiceStub(channel)
        self.doctor = doctor_pb2_grpc.DoctorServiceStub(channel)
        self.models = models_pb2_grpc.ModelServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)

    async def register(self, uris: Mapping[str, str]) -> assets_pb2.RegisterAssetsResponse:
        """Register photos by id."""
        assets = [assets_pb2.NewAsset(id=asset_id, uri=uri) for asset_id, uri in uris.items()]
        async with translate_errors("detection"):
            return await self.assets.RegisterAssets(assets_pb2.RegisterAssetsRequest(assets=assets))

    async def create_session(
        self, asset_ids: Sequence[str] | None = None, *, redetect: bool = False
    ) -> sessions_pb2.DetectionSession:
        """Start a session over these photos, or over all."""
        request = sessions_pb2.CreateDetectionSessionRequest(redetect=redetect, request_id=str(uuid4()))
        if asset_ids is None:
            request.filter.SetInParent()
        else:
            request.assets.ids.extend(asset_ids)
        async with translate_errors("detection"):
            return (await self.sessions.CreateDetectionSession(request)).session

    async def get_session(self, session_id: str) -> sessions_pb2.DetectionSession:
        request = sessions_pb2.GetDetectionSessionRequest(session_id=session_id)
        return (await self.sessions.GetDetectionSession(request)).session

    async def pause(self, session_id: str) -> sessions_pb2.DetectionSession:
        request = sessions_pb2.PauseDetectionSessionRequest(session_id=session_id)
        return (await self.sessions.PauseDetectionSession(request)).session

    async def resume(self, session_id: str) -> sessions_pb2.DetectionSession:
        request = sessions_pb2.ResumeDetectionSessionRequest(session_id=session_id)
        return (await self.sessions.ResumeDetectionSession(request)).session

    async def retry_failed(self, session_id: str, request_id: str = "") -> sessions_pb2.DetectionSession:
        """Start a session over the photos that failed in this one."""
        request = sessions_pb2.RetryFailedPhotosRequest(session_id=session_id, request_id=request_id)
        async with translate_errors("detection"):
            return (await self.sessions.RetryFailedPhotos(request)).session

    async def wait_session(self, session_id: str) -> sessions_pb2.DetectionSession:
        """The session once its job has ended."""
        session = await self.get_session(session_id)
        request = jobs_pb2.WaitJobRequest(job_id=session.job.id)
        request.timeout.FromSeconds(50)
        answer = await self.jobs.WaitJob(request, timeout=55)
        assert answer.ended, answer.job
        return await self.get_session(session_id)

    async def outcomes(
        self, session_id: str, *wanted: sessions_pb2.PhotoOutcome.ValueType
    ) -> dict[str, sessions_pb2.SessionPhoto]:
        """What became of each photo of a session, or of those with a wanted outcome."""
        found: dict[str, sessions_pb2.SessionPhoto] = {}
        token = ""
        while True:
            answer = await self.sessions.ListSessionPhotos(
                sessions_pb2.ListSessionPhotosRequest(
                    session_id=session_id, page_size=7, page_token=token, outcomes=wanted
                )
            )
            found |= {photo.asset_id: photo for photo in answer.photos}
            token = answer.next_page_token
            if not token:
                return found

    async def list_faces(self, asset_id: str = "") -> list[faces_pb2.Face]:
        """Every face, or every face of one photo."""
        found: list[faces_pb2.Face] = []
        token = ""
        while True:
            request = faces_pb2.ListFacesRequest(page_size=1000, page_token=token, asset_id=asset_id)
            answer = await self.faces.ListFaces(request)
            found += answer.faces
            token = answer.next_page_token
            if not token:
                return found

    async def check(self) -> doctor_pb2.CheckConsistencyResponse:
        request = doctor_pb2.CheckConsistencyRequest(depth=doctor_pb2.CHECK_DEPTH_FULL)
        return await self.doctor.CheckConsistency(request)


async def wait_relayed(base: Foundation) -> None:
    """Until Qdrant has everything."""

    async def empty() -> bool:
        async with base.database.transaction() as tx:
            return (await count_waiting(tx))[0] == 0

    await eventually(empty)


async def count_stored(base: Foundation) -> tuple[int, int]:
    """Embeddings in PostgreSQL, and points in Qdrant."""
    async with base.database.transaction() as tx:
        rows = await tx.scalar(select(func.count()).select_from(face_embeddings))
        version = await tx.scalar(select(models.c.model_version))
    points = await base.qdrant.count(base.collections.faces(version), count_filter=qdrant.Filter(), exact=True)
    return rows, points.count


def uuids(faces: Sequence[faces_pb2.Face]) -> list[UUID]:
    """Ids of faces, in order."""
    return [UUID(face.id) for face in faces]
