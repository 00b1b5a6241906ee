"""Every call ends in time, and the handler ends with it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from shared.errors import DeadlineTooShort
from shared.rpc.ambient import time_left
from shared.rpc.channel import translate_errors

from .conftest import Launch
from .echo import EchoClient, EchoRequest, Via

pytestmark = pytest.mark.asyncio


class Endless:
    """An act that waits for ever and tells when it began and how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.left: float | None = None
        self.context_left: float | None = None

    async def __call__(self, _request: Any, context: Any) -> str:
        self.left = time_left()
        self.context_left = context.time_remaining()
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("nothing sets that event")


async def test_a_call_without_a_deadline_gets_the_default(launch: Launch) -> None:
    running = await launch(default_deadline_s=0.2)
    act = running.servicer.act = Endless()
    async with grpc.aio.insecure_channel(running.address) as channel:
        with pytest.raises(DeadlineTooShort) as caught:
            async with translate_errors("echo"):
                await EchoClient(channel).provoke(Via.UNARY)
    assert caught.value.metadata == {"begun": "true"}
    assert act.cancelled.is_set()
    assert act.left is not None
    assert 0 < act.left <= 0.2


async def test_no_deadline_is_longer_than_the_cap(launch: Launch) -> None:
    running = await launch(max_deadline_s=0.2)
    act = running.servicer.act = Endless()
    with pytest.raises(DeadlineTooShort):
        async with translate_errors("echo"):
            await running.client.ask(timeout=3600)
    assert act.context_left is not None
    assert act.context_left <= 0.2


@pytest.mark.parametrize("via", [Via.UNARY, Via.SERVER_STREAM, Via.BIDI])
async def test_a_hopeless_call_is_refused_before_it_begins(launch: Launch, via: Via) -> None:
    running = await launch(min_deadline_s=30.0)
    act = running.servicer.act = Endless()
    with pytest.raises(DeadlineTooShort) as caught:
        async with translate_errors("echo"):
            await running.client.provoke(via, at_once=True, timeout=20)
    assert caught.value.metadata == {"begun": "false"}
    assert not act.began.is_set()
    assert running.metrics.registry.get_sample_value("kith_rpc_refused_total", {"reason": "DEADLINE_TOO_SHORT"}) == 1


@pytest.mark.parametrize(
    "via", [Via.SERVER_STREAM, Via.CLIENT_STREAM, Via.CLIENT_STREAM_BY_READING, Via.BIDI, Via.BIDI_BY_WRITING]
)
async def test_a_stream_has_no_deadline_of_ours(launch: Launch, via: Via) -> None:
    running = await launch(default_deadline_s=0.01, max_deadline_s=0.01)
    expired = asyncio.Event()

    async def act(request: Any, context: Any) -> str:
        assert time_left() is None
        assert context.time_remaining() is None
        asyncio.get_running_loop().call_later(0.05, expired.set)
        await expired.wait()
        return str(request.text)

    running.servicer.act = act
    assert await running.client.send(via, "x") == ["x"]


@pytest.mark.parametrize("via", Via)
async def test_a_caller_that_goes_cancels_the_handler(launch: Launch, via: Via) -> None:
    running = await launch()
    act = running.servicer.act = Endless()
    call = running.client.call(via.value, EchoRequest(text="x"))
    reading = asyncio.ensure_future(call if hasattr(call, "__await__") else call.read())
    await act.began.wait()
    call.cancel()
    await act.cancelled.wait()
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await reading
    await running.server.admission.wait_idle()
    assert running.server.admission.in_flight == 0


async def test_the_time_left_is_passed_on_with_some_to_spare(launch: Launch) -> None:
    back = await launch()
    seen: list[float] = []

    async def note(_request: Any, context: Any) -> str:
        seen.append(context.time_remaining())
        return ""

    back.servicer.act = note
    front = await launch()

    async def forward(request: Any, _context: Any) -> str:
        left = time_left()
        assert left is not None
        seen.append(left)
        return await back.client.ask(request.text)

    front.servicer.act = forward
    await front.client.ask(timeout=20)
    left, passed_on = seen
    # gRPC writes timeouts with three digits, rounded up.
    assert passed_on < left * 0.96


async def test_a_callers_own_shorter_timeout_stays(launch: Launch) -> None:
    running = await launch()
    act = running.servicer.act = Endless()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.client.ask(timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await act.cancelled.wait()
