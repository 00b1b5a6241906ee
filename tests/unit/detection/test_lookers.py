"""Which detection servers are chosen for a model, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest

from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import detection_pb2_grpc
from services.detection.adapters.looker import GrpcLooker
from services.detection.adapters.lookers import Fleet, Fleets, open_fleets
from services.detection.domain.model import PackDescription
from shared.config import RpcSettings, Settings
from shared.errors import Code, KithError, Overloaded, PreconditionFailed, Reason, Unavailable
from shared.jobs.execution import AWAY
from shared.rpc.channel import open_channel
from shared.rpc.status import DETAILS_KEY, to_status

NOBODY = "127.0.0.1:1"


class Describing(detection_pb2_grpc.DetectionServiceServicer):
    """Says what model it runs."""

    def __init__(self, version: str) -> None:
        self._version = version

    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetModelInfoResponse:
        return pb.GetModelInfoResponse(model=pb.ModelInfo(model_version=self._version, pack="pack", dimension=4))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exits:
        yield exits


class Hanging(Describing):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__("")

    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetModelInfoResponse:
        await asyncio.Event().wait()
        raise AssertionError


class Full(Hanging):
    """Refuses every call."""

    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetModelInfoResponse:
        status = to_status(Overloaded("too many calls"))
        details = (DETAILS_KEY, status.SerializeToString())
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, status.message, (details,))


async def serve(stack: AsyncExitStack, model: str | Describing) -> str:
    """A server that runs this model; answers its address."""
    server = grpc.aio.server()
    servicer = Describing(model) if isinstance(model, str) else model
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return f"127.0.0.1:{port}"


async def connect(stack: AsyncExitStack, address: str, answer_s: float) -> Fleet:
    channel = open_channel(address, RpcSettings())
    stack.push_async_callback(channel.close)
    return Fleet(address, GrpcLooker(channel, answer_s))


def open_both(stack: AsyncExitStack, first: str, second: str | None, own: PackDescription | None = None) -> Fleets:
    services = {"detection": first, "detection_next": second}
    return open_fleets(Settings.model_validate({"services": services}), stack, own)


async def test_each_model_is_found_where_it_runs(stack: AsyncExitStack) -> None:
    fleets = open_both(stack, await serve(stack, "old"), await serve(stack, "new"))
    assert (await fleets.describe_model("default", "new")).model_version == "new"
    for version in ("old", "new"):
        looker = await fleets.find_measurer("default", version)
        assert (await looker.describe_pack("default")).model_version == version
    # A library without a model is looked at by the first.
    assert (await (await fleets.find_looker("default", None)).describe_pack("default")).model_version == "old"


async def test_a_model_that_nobody_runs_is_told_with_what_runs_where(stack: AsyncExitStack) -> None:
    first, second = await serve(stack, "old"), await serve(stack, "new")
    with pytest.raises(PreconditionFailed) as refused:
        await open_both(stack, first, second).describe_model("default", "other")
    assert refused.value.reason is Reason.MODEL_MISMATCH
    assert refused.value.message == (
        f"no detection service runs the model 'other': {first} runs 'old', {second} runs 'new'"
    )
    assert refused.value.metadata == {"expected": "other", "actual": "old, new"}


async def test_while_one_is_away_nothing_is_said_about_what_it_may_run(stack: AsyncExitStack) -> None:
    fleets = open_both(stack, NOBODY, await serve(stack, "new"))
    assert (await fleets.describe_model("default", "new")).model_version == "new"
    with pytest.raises(Unavailable):
        await fleets.describe_model("default", "old")


async def test_one_that_hangs_or_is_full_holds_up_nobody(stack: AsyncExitStack) -> None:
    healthy = await serve(stack, "new")
    for trouble in (Hanging(), Full()):
        troubled = await serve(stack, trouble)
        fleets = Fleets([await connect(stack, troubled, 60), await connect(stack, healthy, 60)])
        async with asyncio.timeout(30):
            assert (await fleets.describe_model("default", "new")).model_version == "new"


async def test_one_that_hangs_or_is_full_may_be_the_one_that_is_looked_for(stack: AsyncExitStack) -> None:
    healthy = await serve(stack, "new")
    for trouble, code in ((Hanging(), Code.UNAVAILABLE), (Full(), Code.RESOURCE_EXHAUSTED)):
        troubled = await serve(stack, trouble)
        fleets = Fleets([await connect(stack, troubled, 0.5), await connect(stack, healthy, 60)])
        # A job waits for both, however long it lasts.
        with pytest.raises(KithError) as raised:
            await fleets.find_measurer("default", "old")
        assert raised.value.code is code
        assert code in AWAY


async def test_a_server_knows_its_own_model_without_asking(stack: AsyncExitStack) -> None:
    own = PackDescription("mine", "pack", 4, {}, {})
    assert await open_both(stack, NOBODY, None, own).describe_model("default", "mine") is own
