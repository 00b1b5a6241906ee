"""Overload is refused with a time to come back, while health answers and those inside are served."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.errors import Overloaded, Unavailable
from shared.rpc.channel import translate_errors

from .conftest import Launch, Running
from .echo import SERVICE, EchoClient, EchoRequest, Via

pytestmark = pytest.mark.asyncio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Gate:
    """An act that waits until the gate opens; knows how many wait."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.arrived = asyncio.Semaphore(0)

    async def __call__(self, request: Any, _context: Any) -> str:
        self.arrived.release()
        await self.open.wait()
        return str(request.text)


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(reply.status)


def never_retrying(address: str) -> grpc.aio.Channel:
    """A channel without our policy, which shows the first answer and does not care for health."""
    return grpc.aio.insecure_channel(address, options=(("grpc.enable_retries", 0),))


async def occupy(
    running: Running, *vias: Via, client: EchoClient | None = None
) -> tuple[Gate, list[asyncio.Task[list[str]]]]:
    """One call of each kind in ``vias``, all inside their handlers."""
    gate = Gate()
    running.servicer.act = gate
    inside = []
    for via in vias:
        inside.append(asyncio.create_task((client or running.client).send(via, via.value)))
        await gate.arrived.acquire()
    return gate, inside


async def test_above_the_limit_calls_of_every_kind_are_refused_and_those_inside_served(
    launch: Launch,
) -> None:
    running = await launch(max_concurrent_calls=3)
    held = (Via.UNARY, Via.SERVER_STREAM, Via.BIDI)
    gate, inside = await occupy(running, *held)
    for via in Via:
        with pytest.raises(Overloaded) as caught:
            async with translate_errors("echo"):
                await running.client.provoke(via, at_once=True)
        assert caught.value.retry_after_s
        assert caught.value.metadata == {"limit": "3"}
    assert running.metrics.registry.get_sample_value("kith_rpc_refused_total", {"reason": "OVERLOADED"}) == len(Via)
    gate.open.set()
    assert await asyncio.gather(*inside) == [[via.value] for via in held]
    await running.server.admission.wait_idle()
    assert await running.client.ask("again") == "again"


async def test_health_answers_on_both_ports_when_full(launch: Launch) -> None:
    running = await launch(max_concurrent_calls=1)
    gate, inside = await occupy(running, Via.UNARY)
    for channel in (running.channel, running.health_channel):
        assert await health_of(channel) == SERVING
        assert await health_of(channel, SERVICE) == SERVING
    gate.open.set()
    await asyncio.gather(*inside)


async def test_drain_finishes_what_is_in_flight_and_refuses_what_is_new(launch: Launch) -> None:
    running = await launch(drain_s=60)
    gate, inside = await occupy(running, Via.UNARY, Via.CLIENT_STREAM, Via.BIDI)
    draining = asyncio.create_task(running.server.drain())
    async with never_retrying(running.address) as plain:
        stub: Any = health_pb2_grpc.HealthStub(plain)
        async for reply in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE)):
            if reply.status == NOT_SERVING:
                break
        await running.server.admission.wait_draining()
        assert await health_of(running.health_channel) == NOT_SERVING
        for via in Via:
            with pytest.raises(Unavailable) as caught:
                async with translate_errors("echo"):
                    await EchoClient(plain).provoke(via, at_once=True)
            assert caught.value.reason == "DRAINING"
    assert not draining.done()
    gate.open.set()
    assert await asyncio.gather(*inside) == [["GetEcho"], ["ImportEchoes"], ["DetectStream"]]
    await draining
    assert await health_of(running.health_channel) == NOT_SERVING


@pytest.mark.parametrize("via", [Via.SERVER_STREAM, Via.SERVER_STREAM_BY_WRITING])
async def test_drain_ends_watches_at_once_because_they_can_be_resumed(launch: Launch, via: Via) -> None:
    running = await launch(drain_s=60)
    async with never_retrying(running.address) as plain:
        _gate, (watching,) = await occupy(running, via, client=EchoClient(plain))
        await running.server.drain()
        with pytest.raises(Unavailable) as caught:
            async with translate_errors("echo"):
                await watching
    assert caught.value.reason == "DRAINING"


async def test_drain_cuts_short_what_does_not_end(launch: Launch) -> None:
    running = await launch(drain_s=0.05)
    async with never_retrying(running.address) as plain:
        _gate, (stuck,) = await occupy(running, Via.BIDI, client=EchoClient(plain))
        await running.server.drain()
        with pytest.raises(grpc.aio.AioRpcError):
            await stuck
    assert running.server.admission.in_flight == 0


async def test_reflection_and_health_keep_no_place(launch: Launch) -> None:
    running = await launch()
    stub: Any = health_pb2_grpc.HealthStub(running.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    assert running.server.admission.in_flight == 0
    assert await running.client.call("GetEcho", EchoRequest(text="x")) is not None
