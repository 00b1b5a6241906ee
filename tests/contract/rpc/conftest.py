"""A real server on a real socket, with the service of ``echo``, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest_asyncio

from shared.clock import SystemClock
from shared.config import AuthSettings, RpcSettings
from shared.ids import RandomIds
from shared.rpc.channel import open_channel
from shared.rpc.health import Readiness
from shared.rpc.principal import Authenticator, OpenAuthenticator
from shared.rpc.server import RpcServer
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import Tracing

from .echo import SERVICE, EchoClient, EchoServicer, add_echo_to_server


@dataclass
class Running:
    """One server of a test and everything to reach it."""

    server: RpcServer
    servicer: EchoServicer
    metrics: Metrics
    channel: grpc.aio.Channel
    health_channel: grpc.aio.Channel
    client: EchoClient

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


Launch = Callable[..., Awaitable[Running]]


@pytest_asyncio.fixture
async def launch() -> AsyncIterator[Launch]:
    """``await launch(...)``: a started server, SERVING; settings not given are those of production, ports are free ones."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            authenticator: Authenticator | None = None,
            auth: AuthSettings | None = None,
            tracing: Tracing | None = None,
            checks: dict[str, Callable[[], Awaitable[None]]] | None = None,
            wait: bool = True,
            **settings: Any,
        ) -> Running:
            rpc = RpcSettings(**{"port": 0, "health_port": 0, **settings})
            metrics = Metrics()
            server = RpcServer.build(
                rpc,
                name="echo",
                authenticator=authenticator or OpenAuthenticator(),
                metrics=metrics,
                tracing=tracing or Tracing("echo"),
                ids=RandomIds(SystemClock()),
                readiness=Readiness(metrics, interval_s=0.01, retry_s=0.01),
            )
            servicer = EchoServicer()
            server.add(add_echo_to_server, servicer, SERVICE)
            for name, probe in (checks or {}).items():
                server.readiness.add_check(name, probe)
            stack.push_async_callback(server.close)
            await server.start()
            if wait:
                await server.readiness.wait_serving()
            channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{server.port}", rpc, auth))
            health_channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}")
            )
            return Running(server, servicer, metrics, channel, health_channel, EchoClient(channel))

        yield start
