"""What the worker makes of a detection server that is away, and of one that breaks off, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
import pytest

from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import detection_pb2_grpc
from services.detection.adapters.looker import GrpcLooker
from services.detection.domain.model import OptionOverrides, PendingPhoto
from shared.config import RpcSettings
from shared.errors import Code, KithError, Reason, Unavailable
from shared.rpc.channel import open_channel

PHOTOS = [PendingPhoto("a", "file:///a.jpg"), PendingPhoto("b", "file:///b.jpg")]


class Breaking(detection_pb2_grpc.DetectionServiceServicer):
    """Takes a photo and dies of it, as a caller sees it."""

    async def DetectStream(
        self,
        request_iterator: AsyncIterator[pb.DetectStreamRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.DetectStreamResponse]:
        yield pb.DetectStreamResponse(max_in_flight=1)
        await anext(request_iterator)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


async def look_at_all(looker: GrpcLooker) -> None:
    async with aclosing(looker.look_at("default", PHOTOS, OptionOverrides())) as looks:
        async for _ in looks:
            pass


async def look(address: str) -> KithError:
    """The error that looking at the photos ends with."""
    channel = open_channel(address, RpcSettings())
    try:
        with pytest.raises(KithError) as raised:
            await look_at_all(GrpcLooker(channel))
    finally:
        await channel.close()
    return raised.value


async def test_a_server_that_breaks_off_is_not_tried_for_ever() -> None:
    server = grpc.aio.server()
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(Breaking(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        error = await look(f"127.0.0.1:{port}")
    finally:
        await server.stop(None)
    assert (error.code, error.reason) == (Code.INTERNAL, Reason.INTERNAL_ERROR)


async def test_a_server_that_is_away_is_waited_for(unused_tcp_port: int) -> None:
    error = await look(f"127.0.0.1:{unused_tcp_port}")
    assert isinstance(error, Unavailable)
    assert error.reason is Reason.SERVICE_UNAVAILABLE
