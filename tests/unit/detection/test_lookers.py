"""Which detection servers are chosen for a model, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest

from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import detection_pb2_grpc
from services.detection.adapters.lookers import Fleets, open_fleets
from services.detection.domain.model import PackDescription
from shared.config import Settings
from shared.errors import PreconditionFailed, Reason, Unavailable

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


async def serve(stack: AsyncExitStack, version: str) -> str:
    """A server that runs this model; answers its address."""
    server = grpc.aio.server()
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(Describing(version), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return f"127.0.0.1:{port}"


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


async def test_a_server_knows_its_own_model_without_asking(stack: AsyncExitStack) -> None:
    own = PackDescription("mine", "pack", 4, {}, {})
    assert await open_both(stack, NOBODY, None, own).describe_model("default", "mine") is own
