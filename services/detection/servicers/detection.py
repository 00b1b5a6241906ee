"""DetectionService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import structlog

from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import detection_pb2_grpc
from services.detection.convert.looks import from_options
from services.detection.convert.models import to_model_info
from services.detection.convert.sights import from_image, to_image_faces, to_reply_failure
from services.detection.domain.flow import map_windowed
from services.detection.domain.looking import FaceFinder
from services.detection.inference.faces import ModelInfo
from shared.errors import KithError, Reason
from shared.ids import IdFactory, parse_library_id
from shared.rpc.ambient import current_principal, time_left
from shared.rpc.failures import to_kith_error

Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger(__name__)


class DetectionServicer(detection_pb2_grpc.DetectionServiceServicer):
    """Finds faces and stores nothing."""

    def __init__(self, finder: FaceFinder, model: ModelInfo, window: int, ids: IdFactory) -> None:
        """``window``: photos of one stream that may be in flight."""
        self._finder = finder
        self._model = model
        self._window = window
        self._ids = ids

    async def DetectFaces(self, request: pb.DetectFacesRequest, context: Context) -> pb.DetectFacesResponse:
        parse_library_id(request.library_id)
        sight = await self._finder.find_faces(
            from_image(request.image),
            from_options(request.options),
            with_embeddings=request.include_embeddings,
            caller=f"{current_principal().subject} {context.peer()}",
            patience_s=time_left(),
        )
        return pb.DetectFacesResponse(result=to_image_faces(sight, self._model.version))

    async def DetectStream(
        self, request_iterator: AsyncIterator[pb.DetectStreamRequest], context: Context
    ) -> AsyncIterator[pb.DetectStreamResponse]:
        lane = f"stream {self._ids.new_uuid()}"
        yield pb.DetectStreamResponse(max_in_flight=self._window)
        replies = map_windowed(request_iterator, lambda request: self._reply(request, lane), self._window)
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Context) -> pb.GetModelInfoResponse:
        parse_library_id(request.library_id)
        return pb.GetModelInfoResponse(model=to_model_info(self._model))

    async def _reply(self, request: pb.DetectStreamRequest, lane: str) -> pb.DetectStreamResponse:
        """The reply to one photo; what goes wrong with it is told in the reply and ends nothing."""
        try:
            parse_library_id(request.library_id)
            sight = await self._finder.find_faces_in_turn(
                from_image(request.image),
                from_options(request.options),
                with_embeddings=request.include_embeddings,
                caller=lane,
            )
        except Exception as error:
            known = to_kith_error(error)
            if known is None:
                log.exception("photo_crashed", sequence=request.sequence)
                known = KithError("an error of ours; the log has it", reason=Reason.INTERNAL_ERROR)
            return pb.DetectStreamResponse(sequence=request.sequence, failure=to_reply_failure(request.sequence, known))
        return pb.DetectStreamResponse(sequence=request.sequence, result=to_image_faces(sight, self._model.version))
