"""The one builder of Kith's gRPC servers.

Every server gets the same interceptors, reflection for all its services, grpc.health.v1 on the main port and on one of its
own, the same limits, and the same way to stop::

    server = RpcServer.build(settings.rpc, name="persons", authenticator=..., metrics=..., tracing=..., ids=...)
    server.add(add_PersonServiceServicer_to_server, PersonServicer(...), "kith.persons.v1.PersonService")
    server.readiness.add_check("database", database.ping)
    stack.push_async_callback(server.close)
    await server.start()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from shared.config import RpcSettings
from shared.ids import IdFactory
from shared.rpc.health import HealthServer, Readiness
from shared.rpc.interceptors.admission import Admission, AdmissionInterceptor
from shared.rpc.interceptors.auth import AuthInterceptor
from shared.rpc.interceptors.call import CallInterceptor, InterceptedServer
from shared.rpc.interceptors.deadlines import DeadlinesInterceptor
from shared.rpc.interceptors.errors import ErrorsInterceptor
from shared.rpc.interceptors.telemetry import TelemetryInterceptor
from shared.rpc.interceptors.text import TextInterceptor
from shared.rpc.listening import listen
from shared.rpc.principal import Authenticator
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import Tracing

log = structlog.get_logger(__name__)

# A handler that has returned may still have its answer on the way to the socket. Ends as soon as all are out.
_FLUSH_S = 2.0


class RpcServer:
    """A gRPC server and its health port. Build it inside a running event loop."""

    def __init__(
        self,
        settings: RpcSettings,
        *,
        name: str,
        interceptors: Sequence[CallInterceptor],
        admission: Admission,
        health: HealthServer,
    ) -> None:
        self._settings = settings
        self._name = name
        self._server = grpc.aio.server(options=server_options(settings))
        self._intercepted = InterceptedServer(self._server, interceptors)
        self._health = health
        self._services: list[str] = []
        self.admission = admission
        self.readiness = health.readiness
        self.port = 0
        """The bound main port, once started."""

    @classmethod
    def build(
        cls,
        settings: RpcSettings,
        *,
        name: str,
        authenticator: Authenticator,
        metrics: Metrics,
        tracing: Tracing,
        ids: IdFactory,
        readiness: Readiness | None = None,
    ) -> RpcServer:
        """A server without services that does not listen yet. ``readiness`` is for tests with their own pace."""
        admission = Admission(settings.max_concurrent_calls)
        interceptors = (
            TelemetryInterceptor(metrics, tracing, ids),
            ErrorsInterceptor(),
            AdmissionInterceptor(admission, metrics),
            AuthInterceptor(authenticator, metrics),
            TextInterceptor(),
            DeadlinesInterceptor(settings, metrics),
        )
        checks = readiness if readiness is not None else Readiness(metrics)
        health_server = HealthServer(settings, checks, name=name)
        return cls(settings, name=name, interceptors=interceptors, admission=admission, health=health_server)

    @property
    def health_port(self) -> int:
        """The bound health port, once started."""
        return self._health.port

    @property
    def services(self) -> tuple[str, ...]:
        """Full names of the services added."""
        return tuple(self._services)

    def add(self, add_to_server: Callable[[Any, Any], None], servicer: Any, full_service_name: str) -> None:
        """Register ``servicer`` by the generated ``add_XServicer_to_server``. Before :meth:`start`."""
        add_to_server(servicer, self._intercepted)
        self._services.append(full_service_name)
        self.readiness.add_service(full_service_name)

    async def start_health(self) -> None:
        """Answer on the health port already, NOT_SERVING, while slow things are still being built. Idempotent."""
        await self._health.start()

    async def start(self) -> None:
        """Listen on both ports. Raises :class:`AddressTakenError`."""
        # Generated code asks of a server no more than what InterceptedServer has.
        served: Any = self._intercepted
        health_pb2_grpc.add_HealthServicer_to_server(self.readiness.servicer, served)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        add_reflection(reflection.aio.ReflectionServicer(names), served)
        self.port = listen(self._server, self._settings.host, self._settings.port, name=self._name)
        await self.start_health()
        await self._server.start()
        log.info(
            "listening",
            server=self._name,
            port=self.port,
            health_port=self.health_port,
            services=self._services,
        )

    async def drain(self) -> None:
        """Stop without dropping a call.

        NOT_SERVING is shown first, so that balancing clients turn elsewhere; after ``drain_announce_s`` new calls are
        refused (UNAVAILABLE, DRAINING) and calls in flight may end within ``drain_s``; the rest is cancelled.
        """
        await self.readiness.drain()
        if self._settings.drain_announce_s:
            await asyncio.sleep(self._settings.drain_announce_s)
        self.admission.drain()
        grace: float | None = _FLUSH_S
        try:
            async with asyncio.timeout(self._settings.drain_s):
                await self.admission.wait_idle()
        except TimeoutError:
            log.warning("calls cut short by the end of draining", server=self._name, calls=self.admission.in_flight)
            grace = None
        self.admission.close()
        await self._server.stop(grace)
        log.info("drained", server=self._name)

    async def close(self) -> None:
        """Stop at once, health last. After :meth:`drain`, or instead of it."""
        await self._server.stop(None)
        await self._health.close()


def server_options(settings: RpcSettings) -> tuple[tuple[str, Any], ...]:
    """Channel arguments of a server: message sizes, keepalive as ``channel_options`` expects, the port to itself."""
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    )
