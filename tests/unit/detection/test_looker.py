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
from services.detection.domain.ports import DetectorBroke
from shared.config import RpcSettings
from shared.errors import Code, KithError, Reason, Unavailable
from shared.rpc.channel import open_channel
from shared.rpc.status import DETAILS_KEY, to_status

PHOTOS = [PendingPhoto(name, f"file:///{name}.jpg") for name in "abc"]


class Breaking(detection_pb2_grpc.DetectionServiceServicer):
    """Allows ``window`` photos, answers the first, takes some more, and dies of them, as a caller sees it."""

    def __init__(self, window: int, takes: int) -> None:
        self._window = window
        self._takes = takes

    async def DetectStream(
        self,
        request_iterator: AsyncIterator[pb.DetectStreamRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.DetectStreamResponse]:
        yield pb.DetectStreamResponse(max_in_flight=self._window)
        first = await anext(request_iterator)
        yield pb.DetectStreamResponse(sequence=first.sequence, result=pb.ImageFaces())
        for _ in range(self._takes):
            await anext(request_iterator)
        await self.go_away(context)

    async def go_away(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


class Draining(Breaking):
    """Says that it is shutting down, photos in hand or not."""

    async def go_away(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        status = to_status(Unavailable("the server is shutting down", reason=Reason.DRAINING))
        details = (DETAILS_KEY, status.SerializeToString())
        await context.abort(grpc.StatusCode.UNAVAILABLE, status.message, (details,))


class Serving:
    """One servicer on a socket of its own."""

    def __init__(self, servicer: Breaking) -> None:
        self._server = grpc.aio.server()
        detection_pb2_grpc.add_DetectionServiceServicer_to_server(servicer, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def __aenter__(self) -> str:
        await self._server.start()
        return self.address

    async def __aexit__(self, *_error: object) -> None:
        await self._server.stop(None)


async def look(address: str, *, alone: bool = False) -> tuple[list[str], KithError]:
    """The photos that were answered, and the error that looking at them ends with."""
    channel = open_channel(address, RpcSettings())
    answered: list[str] = []
    try:
        with pytest.raises(KithError) as raised:
            await look_at_all(GrpcLooker(channel), alone, answered)
    finally:
        await channel.close()
    return answered, raised.value


async def look_at_all(looker: GrpcLooker, alone: bool, answered: list[str]) -> None:
    async with aclosing(looker.look_at("default", PHOTOS, OptionOverrides(), alone=alone)) as looks:
        async for found in looks:
            answered.append(found.asset_id)


async def test_a_server_that_breaks_off_names_what_it_had_in_hand() -> None:
    async with Serving(Breaking(window=2, takes=2)) as address:
        answered, error = await look(address)
    assert answered == ["a"]
    assert isinstance(error, DetectorBroke)
    assert error.in_hand == ("b", "c")


async def test_alone_means_one_in_hand_whatever_the_server_allows() -> None:
    async with Serving(Breaking(window=2, takes=1)) as address:
        answered, error = await look(address, alone=True)
    assert answered == ["a"]
    assert isinstance(error, DetectorBroke)
    assert error.in_hand == ("b",)


async def test_a_server_that_shuts_down_suspects_nobody() -> None:
    async with Serving(Draining(window=2, takes=2)) as address:
        _, error = await look(address)
    assert not isinstance(error, DetectorBroke)
    assert (error.code, error.reason) == (Code.UNAVAILABLE, Reason.DRAINING)


async def test_a_server_that_is_away_is_waited_for(unused_tcp_port: int) -> None:
    _, error = await look(f"127.0.0.1:{unused_tcp_port}")
    assert isinstance(error, Unavailable)
    assert not isinstance(error, DetectorBroke)
    assert error.reason is Reason.SERVICE_UNAVAILABLE
