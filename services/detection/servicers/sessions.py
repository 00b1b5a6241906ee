"""DetectionSessionService."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc

from kith.detection.v1 import sessions_pb2 as pb
from kith.detection.v1 import sessions_pb2_grpc
from services.detection.convert.sessions import from_create_request, from_outcome, to_session, to_session_photo
from services.detection.domain.model import DetectionDeps, Session
from services.detection.domain.sessions import (
    cancel_session,
    create_session,
    pause_session,
    resume_session,
    retry_failed,
)
from services.detection.repository.session_photos import list_session_photos
from services.detection.repository.sessions import get_job_id, get_session, list_sessions
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.ids import parse_library_id, parse_uuid
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]


class SessionServicer(sessions_pb2_grpc.DetectionSessionServiceServicer):
    """Detection over many registered photos."""

    def __init__(self, database: Database, mutations: Mutations, deps: DetectionDeps) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps

    async def CreateDetectionSession(
        self, request: pb.CreateDetectionSessionRequest, context: Context
    ) -> pb.CreateDetectionSessionResponse:
        command = from_create_request(request)

        async def work(tx: Transaction, caller: Caller) -> pb.CreateDetectionSessionResponse:
            made = await create_session(tx, self._deps, command, caller)
            return pb.CreateDetectionSessionResponse(session=self._message(made))

        return await self._mutations.run(request, pb.CreateDetectionSessionResponse, work)

    async def GetDetectionSession(
        self, request: pb.GetDetectionSessionRequest, context: Context
    ) -> pb.GetDetectionSessionResponse:
        library_id, session_id = _key(request)
        async with self._database.snapshot() as tx:
            found = await get_session(tx, library_id, session_id)
        return pb.GetDetectionSessionResponse(session=self._message(found))

    async def ListDetectionSessions(
        self, request: pb.ListDetectionSessionsRequest, context: Context
    ) -> pb.ListDetectionSessionsResponse:
        library_id = parse_library_id(request.library_id)
        page = read_page_request(request.page_size, request.page_token, default=50, maximum=500, filters=(library_id,))
        async with self._database.snapshot() as tx:
            found = await list_sessions(tx, library_id, page)
        return pb.ListDetectionSessionsResponse(
            sessions=[self._message(session) for session in found.items], next_page_token=found.next_token
        )

    async def ListSessionPhotos(
        self, request: pb.ListSessionPhotosRequest, context: Context
    ) -> pb.ListSessionPhotosResponse:
        library_id, session_id = _key(request)
        outcomes = tuple(from_outcome(value, f"outcomes[{index}]") for index, value in enumerate(request.outcomes))
        page = read_page_request(
            request.page_size,
            request.page_token,
            default=100,
            maximum=1000,
            filters=(library_id, session_id, outcomes),
        )
        async with self._database.snapshot() as tx:
            await get_job_id(tx, library_id, session_id)
            found = await list_session_photos(tx, session_id, page, outcomes)
        return pb.ListSessionPhotosResponse(
            photos=[to_session_photo(photo) for photo in found.items], next_page_token=found.next_token
        )

    async def PauseDetectionSession(
        self, request: pb.PauseDetectionSessionRequest, context: Context
    ) -> pb.PauseDetectionSessionResponse:
        library_id, session_id = _key(request)

        async def work(tx: Transaction, caller: Caller) -> pb.PauseDetectionSessionResponse:
            held = await pause_session(tx, library_id, session_id)
            return pb.PauseDetectionSessionResponse(session=self._message(held))

        return await self._mutations.run(request, pb.PauseDetectionSessionResponse, work)

    async def ResumeDetectionSession(
        self, request: pb.ResumeDetectionSessionRequest, context: Context
    ) -> pb.ResumeDetectionSessionResponse:
        library_id, session_id = _key(request)

        async def work(tx: Transaction, caller: Caller) -> pb.ResumeDetectionSessionResponse:
            going = await resume_session(tx, library_id, session_id)
            return pb.ResumeDetectionSessionResponse(session=self._message(going))

        return await self._mutations.run(request, pb.ResumeDetectionSessionResponse, work)

    async def CancelDetectionSession(
        self, request: pb.CancelDetectionSessionRequest, context: Context
    ) -> pb.CancelDetectionSessionResponse:
        library_id, session_id = _key(request)

        async def work(tx: Transaction, caller: Caller) -> pb.CancelDetectionSessionResponse:
            ended = await cancel_session(tx, self._deps, library_id, session_id)
            return pb.CancelDetectionSessionResponse(session=self._message(ended))

        return await self._mutations.run(request, pb.CancelDetectionSessionResponse, work)

    async def RetryFailedPhotos(
        self, request: pb.RetryFailedPhotosRequest, context: Context
    ) -> pb.RetryFailedPhotosResponse:
        library_id, session_id = _key(request)

        async def work(tx: Transaction, caller: Caller) -> pb.RetryFailedPhotosResponse:
            made = await retry_failed(tx, self._deps, library_id, session_id, caller)
            return pb.RetryFailedPhotosResponse(session=self._message(made))

        return await self._mutations.run(request, pb.RetryFailedPhotosResponse, work)

    def _message(self, session: Session) -> pb.DetectionSession:
        return to_session(session, self._deps.clock.now())


def _key(
    request: pb.GetDetectionSessionRequest
    | pb.ListSessionPhotosRequest
    | pb.PauseDetectionSessionRequest
    | pb.ResumeDetectionSessionRequest
    | pb.CancelDetectionSessionRequest
    | pb.RetryFailedPhotosRequest,
) -> tuple[str, UUID]:
    """Library and id of the session a request is about."""
    return parse_library_id(request.library_id), parse_uuid(request.session_id, "session_id")
