"""Readiness, shown as grpc.health.v1.

A process is NOT_SERVING until every named check has passed, again while one fails, and for good once it drains. It is
shown on the main port, where balancing clients watch it, and on a port of its own that answers when the main one is full.
Workers have only the latter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from shared.config import RpcSettings
from shared.rpc.listening import listen
from shared.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

Probe = Callable[[], Awaitable[None]]
"""Returns when the thing is ready, raises when it is not."""

OVERALL: Final = ""
LIVENESS: Final = "liveness"
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Readiness:
    """The named checks of one process and what they say now."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        interval_s: float = 2.0,
        retry_s: float = 0.25,
        probe_timeout_s: float = 5.0,
    ) -> None:
        """Checks run every ``interval_s`` while all pass, every ``retry_s`` while one fails."""
        self._metrics = metrics
        self._interval_s = interval_s
        self._retry_s = retry_s
        self._probe_timeout_s = probe_timeout_s
        self._probes: dict[str, Probe] = {}
        self._failing: dict[str, str] = {}
        self._services: list[str] = [OVERALL]
        self._draining = False
        self._serving: bool | None = None
        self._ready = asyncio.Event()
        self._showing = asyncio.Lock()
        self._loop: asyncio.Task[None] | None = None
        self.servicer = health_aio.HealthServicer()

    @property
    def serving(self) -> bool:
        """What the probes of Kubernetes and of ``kith up`` see."""
        return self._serving is True

    def add_service(self, name: str) -> None:
        """Also answer for the gRPC service ``name``."""
        self._services.append(name)

    def add_check(self, name: str, probe: Probe) -> None:
        """Serve only while ``probe`` returns. Raises ``ValueError`` if there is one called ``name``."""
        if name in self._probes:
            raise ValueError(f"there is a readiness check '{name}' already")
        self._probes[name] = probe

    async def start(self) -> None:
        """Show NOT_SERVING and begin to check.

        The service ``liveness`` is SERVING from here to the end: what answers is alive, ready or not, and a store that is
        away is no reason to be restarted.
        """
        await self.servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._show(serving=False)
        self._loop = asyncio.create_task(self._check_forever(), name="readiness")

    async def close(self) -> None:
        """Stop checking."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def check_now(self) -> bool:
        """Run every check once, all at the same time, and show the result."""
        names = list(self._probes)
        faults = await asyncio.gather(*(self._fault_of(self._probes[name]) for name in names))
        for name, fault in zip(names, faults, strict=True):
            self._note(name, fault)
        await self._show(serving=not self._failing)
        return self.serving

    async def wait_serving(self) -> None:
        """Until it has been SERVING at least once."""
        await self._ready.wait()

    async def drain(self) -> None:
        """NOT_SERVING from now on, whatever the checks say."""
        self._draining = True
        await self._show(serving=False)

    async def _check_forever(self) -> None:
        while True:
            ready = await self.check_now()
            await asyncio.sleep(self._interval_s if ready else self._retry_s)

    async def _fault_of(self, probe: Probe) -> str | None:
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                await probe()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _note(self, name: str, fault: str | None) -> None:
        self._metrics.ready.labels(name).set(0 if fault else 1)
        if fault is None:
            if self._failing.pop(name, None) is not None:
                log.info("readiness check passes again", check=name)
        else:
            if name not in self._failing:
                log.warning("readiness check fails", check=name, fault=fault)
            self._failing[name] = fault

    async def _show(self, *, serving: bool) -> None:
        # One at a time: a check that ends while draining begins must not have the last word.
        async with self._showing:
            serving = serving and not self._draining
            if serving is self._serving:
                return
            first = self._serving is None
            self._serving = serving
            for name in self._services:
                await self.servicer.set(name, _SERVING if serving else _NOT_SERVING)
        if serving:
            self._ready.set()
        if not first:
            log.info("serving" if serving else "not serving")


class HealthServer:
    """grpc.health.v1 alone, on its own port. For a worker this is all there is."""

    def __init__(self, settings: RpcSettings, readiness: Readiness, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._server: grpc.aio.Server | None = None
        self.readiness = readiness
        self.port = 0
        """The bound port, once started."""

    async def start(self) -> None:
        """Listen and begin to check; a second call does nothing. Raises :class:`AddressTakenError`."""
        if self._server is not None:
            return
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(self.readiness.servicer, server)
        self.port = listen(server, self._settings.host, self._settings.health_port, name=f"{self._name} health")
        await self.readiness.start()
        await server.start()
        self._server = server

    async def close(self) -> None:
        """Stop checking and answering."""
        await self.readiness.close()
        if self._server is not None:
            await self._server.stop(None)
