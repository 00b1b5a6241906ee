"""DetectionService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import structlog

from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import detection_pb2_grpc
from services.detection.convert.comparing import from_compare_request, to_compare_response
from services.detection.convert.looks import from_options
from services.detection.convert.models import to_model_info
from services.detection.convert.sights import from_given_faces, from_image, to_image_faces, to_reply_failure
from services.detection.domain.comparing import compare_faces
from services.detection.domain.flow import map_windowed
from services.detection.domain.looking import FaceFinder, Sight
from services.detection.domain.model import PackDescription
from services.detection.domain.searching import Looking
from services.detection.inference.faces import ModelInfo
from shared.db.engine import Database
from shared.errors import KithError, Reason, Unavailable
from shared.ids import IdFactory, parse_library_id
from shared.rpc.ambient import current_principal, time_left
from shared.rpc.failures import to_kith_error

Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger(__name__)


class DetectionServicer(detection_pb2_grpc.DetectionServiceServicer):
    """Finds faces and stores nothing."""

    def __init__(
        self,
        database: Database,
        finder: FaceFinder,
        model: ModelInfo,
        pack: PackDescription,
        window: int,
        ids: IdFactory,
        wait_draining: Callable[[], Awaitable[None]],
    ) -> None:
        """``window``: photos of one stream that may be in flight. ``wait_draining`` returns when the server stops. ``pack``
        describes ``model``.
        """
        self._database = database
        self._finder = finder
        self._model = model
        self._pack = pack
        self._window = window
        self._ids = ids
        self._wait_draining = wait_draining

    async def DetectFaces(self, request: pb.DetectFacesRequest, context: Context) -> pb.DetectFacesResponse:
        parse_library_id(request.library_id)
        source, caller = from_image(request.image), f"{current_principal().subject} {context.peer()}"
        if request.given_faces:
            sight = await self._finder.measure_given(
                source,
                from_given_faces(request.given_faces),
                with_embeddings=request.include_embeddings,
                caller=caller,
                patience_s=time_left(),
            )
        else:
            sight = await self._finder.find_faces(
                source,
                from_options(request.options),
                with_embeddings=request.include_embeddings,
                caller=caller,
                patience_s=time_left(),
            )
        return pb.DetectFacesResponse(result=to_image_faces(sight, self._model.version))

    async def DetectStream(
        self, request_iterator: AsyncIterator[pb.DetectStreamRequest], context: Context
    ) -> AsyncIterator[pb.DetectStreamResponse]:
        lane = f"stream {self._ids.new_uuid()}"
        yield pb.DetectStreamResponse(max_in_flight=self._window)
        replies = map_windowed(
            request_iterator, lambda request: self._reply(request, lane), self._window, self._end_when_draining
        )
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    async def CompareFaces(self, request: pb.CompareFacesRequest, context: Context) -> pb.CompareFacesResponse:
        looking = Looking(
            self._finder, self._pack, f"{current_principal().subject} {context.peer()}", patience_s=time_left()
        )
        return to_compare_response(await compare_faces(self._database, looking, from_compare_request(request)))

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Context) -> pb.GetModelInfoResponse:
        parse_library_id(request.library_id)
        return pb.GetModelInfoResponse(model=to_model_info(self._model))

    async def _end_when_draining(self) -> None:
        await self._wait_draining()
        raise Unavailable(
            "this server is stopping; photos without a reply have to be sent to another one", reason=Reason.DRAINING
        )

    async def _reply(self, request: pb.DetectStreamRequest, lane: str) -> pb.DetectStreamResponse:
        """The reply to one photo; what goes wrong with it is told in the reply and ends nothing."""
        try:
            sight = await self._look(request, lane)
        except Exception as error:
            known = to_kith_error(error)
            if known is None:
                log.exception("photo_crashed", sequence=request.sequence)
                known = KithError("an error of ours; the log has it", reason=Reason.INTERNAL_ERROR)
            return pb.DetectStreamResponse(sequence=request.sequence, failure=to_reply_failure(request.sequence, known))
        return pb.DetectStreamResponse(sequence=request.sequence, result=to_image_faces(sight, self._model.version))

    async def _look(self, request: pb.DetectStreamRequest, lane: str) -> Sight:
        parse_library_id(request.library_id)
        source, with_embeddings = from_image(request.image), request.include_embeddings
        if request.given_faces:
            given = from_given_faces(request.given_faces)
            return await self._finder.measure_given_in_turn(source, given, with_embeddings=with_embeddings, caller=lane)
        options = from_options(request.options)
        return await self._finder.find_faces_in_turn(source, options, with_embeddings=with_embeddings, caller=lane)
