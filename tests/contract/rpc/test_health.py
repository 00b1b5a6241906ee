"""NOT_SERVING until every check has passed, while one fails, and once draining; on both ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from shared.config import RpcSettings
from shared.rpc.health import HealthServer, Readiness
from shared.rpc.listening import AddressTakenError
from shared.telemetry.metrics import Metrics

from .conftest import Launch
from .echo import SERVICE

pytestmark = pytest.mark.asyncio

Status = health_pb2.HealthCheckResponse


class Switch:
    """A readiness check that passes while it is on."""

    def __init__(self, *, on: bool) -> None:
        self.on = on

    async def __call__(self) -> None:
        if not self.on:
            raise ConnectionError("postgresql://kith:pass@db/kith refused")


async def watch(channel: grpc.aio.Channel, service: str = "") -> AsyncIterator[int]:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async for reply in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
        yield int(reply.status)


async def test_serving_follows_the_checks(launch: Launch) -> None:
    database, model = Switch(on=True), Switch(on=False)
    running = await launch(checks={"database": database, "model": model}, wait=False)
    for port in (running.server.port, running.server.health_port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for service in ("", SERVICE):
                model.on = False
                statuses = watch(channel, service)
                while await anext(statuses) != Status.NOT_SERVING:
                    pass
                model.on = True
                assert await anext(statuses) == Status.SERVING
                database.on = False
                assert await anext(statuses) == Status.NOT_SERVING
                database.on = True
                assert await anext(statuses) == Status.SERVING
    assert running.metrics.registry.get_sample_value("kith_ready", {"check": "model"}) == 1


async def test_draining_is_not_serving_whatever_the_checks_say(launch: Launch) -> None:
    running = await launch()
    statuses = watch(running.health_channel)
    assert await anext(statuses) == Status.SERVING
    await running.server.readiness.drain()
    assert await anext(statuses) == Status.NOT_SERVING
    assert await running.server.readiness.check_now() is False
    assert not running.server.readiness.serving


async def test_a_check_that_passes_late_does_not_undo_draining() -> None:
    readiness = Readiness(Metrics())
    asked, passes = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await passes.wait()

    readiness.add_check("model", slow)
    checking = asyncio.create_task(readiness.check_now())
    await asked.wait()
    await readiness.drain()
    passes.set()
    assert await checking is False
    assert not readiness.serving


async def test_drain_ends_the_health_watches_of_the_main_port(launch: Launch) -> None:
    running = await launch()
    async with grpc.aio.insecure_channel(running.address) as channel:
        statuses = watch(channel)
        assert await anext(statuses) == Status.SERVING
        draining = asyncio.create_task(running.server.drain())
        assert await anext(statuses) == Status.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(statuses)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await draining


async def test_a_check_that_hangs_is_a_check_that_fails() -> None:
    readiness = Readiness(Metrics(), probe_timeout_s=0.01)

    async def hang() -> None:
        await asyncio.Event().wait()

    readiness.add_check("model", hang)
    assert await readiness.check_now() is False
    assert not readiness.serving


async def test_an_unknown_service_is_not_found(launch: Launch) -> None:
    running = await launch()
    stub: Any = health_pb2_grpc.HealthStub(running.health_channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="kith.nothing.v1.Nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_worker_has_health_alone() -> None:
    health = HealthServer(RpcSettings(health_port=0), Readiness(Metrics()), name="worker")
    await health.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{health.port}") as channel:
        await health.readiness.wait_serving()
        assert await anext(watch(channel)) == Status.SERVING
    await health.close()


@pytest.mark.parametrize("which", ["port", "health_port"])
async def test_a_taken_port_is_said_clearly(launch: Launch, which: str) -> None:
    running = await launch()
    port = getattr(running.server, which)
    with pytest.raises(AddressTakenError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
        await launch(**{which: port})


async def test_reflection_lists_every_service(launch: Launch) -> None:
    running = await launch()
    untyped: Any = running.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(untyped)
    ask = reflection_pb2.ServerReflectionRequest
    call = stub.ServerReflectionInfo(iter([ask(list_services=""), ask(file_containing_symbol=SERVICE)]))
    listed, described = [reply async for reply in call]
    assert {service.name for service in listed.list_services_response.service} == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert b"EchoRequest" in described.file_descriptor_response.file_descriptor_proto[0]
