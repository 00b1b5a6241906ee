"""What every process of Kith stands on, put together in one place: a server, or a worker.

Built by plain functions inside the process's exit stack, so that everything closes in reverse order whatever happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from qdrant_client import AsyncQdrantClient

from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from shared.clock import Clock, SystemClock
from shared.config import Settings
from shared.db.engine import Database
from shared.db.notify import Listener
from shared.ids import IdFactory, RandomIds
from shared.jobs.execution import JobHandler, SliceExecutor
from shared.jobs.servicer import JobServicer
from shared.jobs.watch import JobWatch
from shared.queue.cron import forget_old_answers, measure_outbox
from shared.queue.worker import Dispatcher, SliceWorker
from shared.rpc.health import HealthServer, Probe, Readiness
from shared.rpc.mutation import Mutations
from shared.rpc.principal import build_authenticator
from shared.rpc.server import RpcServer
from shared.telemetry.metrics import Metrics, serve_metrics
from shared.telemetry.tracing import Tracing, build_tracing
from shared.vectors.client import open_qdrant
from shared.vectors.collections import Collections
from shared.vectors.relay import Relay

Chore = Callable[[], Coroutine[Any, Any, None]]
"""Something a worker does for as long as it lives, besides its slices; it outlives stores that are away."""


@dataclass(frozen=True, slots=True)
class Foundation:
    """Shared by all use cases of one process."""

    settings: Settings
    clock: Clock
    ids: IdFactory
    metrics: Metrics
    tracing: Tracing
    database: Database
    listener: Listener
    qdrant: AsyncQdrantClient
    collections: Collections
    mutations: Mutations


async def open_foundation(settings: Settings, stack: AsyncExitStack, process: str) -> Foundation:
    """Make the stores' clients and the telemetry of ``process``. Connects to nothing but the notification channel."""
    clock = SystemClock()
    metrics = Metrics()
    if settings.telemetry.metrics_port:
        endpoint = serve_metrics(metrics, host=settings.rpc.host, port=settings.telemetry.metrics_port)
        stack.push_async_callback(endpoint.close)
    tracing = build_tracing(settings.telemetry, process=process)
    stack.push_async_callback(tracing.close)
    database = Database.connect(settings.database, application=f"kith.{process}")
    stack.push_async_callback(database.close)
    listener = Listener(settings.database)
    listener.start()
    stack.push_async_callback(listener.close)
    qdrant = open_qdrant(settings.qdrant)
    stack.push_async_callback(qdrant.close)
    return Foundation(
        settings=settings,
        clock=clock,
        ids=RandomIds(clock),
        metrics=metrics,
        tracing=tracing,
        database=database,
        listener=listener,
        qdrant=qdrant,
        collections=Collections(qdrant, settings.qdrant, settings.environment),
        mutations=Mutations(database, clock),
    )


async def build_server(
    base: Foundation, stack: AsyncExitStack, name: str, checks: Mapping[str, Probe] | None = None
) -> RpcServer:
    """A server with JobService that answers on its health port already; the caller adds its services and starts it.

    ``checks`` are readiness checks besides the database's, by name: given here, because added later they could be
    preceded by a moment of SERVING.
    """
    server = RpcServer.build(
        base.settings.rpc,
        name=name,
        authenticator=build_authenticator(base.settings.auth),
        metrics=base.metrics,
        tracing=base.tracing,
        ids=base.ids,
    )
    stack.push_async_callback(server.close)
    server.readiness.add_check("database", base.database.ping)
    for check, probe in (checks or {}).items():
        server.readiness.add_check(check, probe)
    await server.start_health()
    watch = JobWatch(base.database, base.listener, base.settings.jobs)
    server.add(
        jobs_pb2_grpc.add_JobServiceServicer_to_server,
        JobServicer(base.database, watch, base.mutations, base.clock),
        jobs_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    )
    return server


class WorkerProcess:
    """A worker: its slices, the relay, and the chores, until drained."""

    def __init__(self, slices: SliceWorker, health: HealthServer, chores: list[asyncio.Task[None]]) -> None:
        self._slices = slices
        self._health = health
        self._chores = chores

    async def drain(self) -> None:
        """Give the slices back, then stop the chores."""
        await self._health.readiness.drain()
        await self._slices.drain()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)

    async def wait(self) -> None:
        """Returns only if a chore or the taking of slices ends, which none should; raises what ended it."""
        done, _ = await asyncio.wait(self._chores, return_when=asyncio.FIRST_COMPLETED)
        for chore in done:
            chore.result()


async def start_worker(
    base: Foundation,
    stack: AsyncExitStack,
    service: str,
    handlers: dict[str, JobHandler],
    chores: Mapping[str, Chore] | None = None,
) -> WorkerProcess:
    """Start a worker for the jobs of ``service``; ``handlers`` by job kind, the service's own ``chores`` by name."""
    health = HealthServer(base.settings.rpc, Readiness(base.metrics), name=f"{service}.worker")
    health.readiness.add_check("database", base.database.ping)
    await health.start()
    stack.push_async_callback(health.close)
    settings = base.settings
    executor = SliceExecutor(handlers, base.database, base.clock, base.ids, settings.jobs, base.metrics)
    dispatcher = Dispatcher(service, tuple(handlers), base.database, base.listener, base.clock, settings.jobs)
    slices = SliceWorker(executor, dispatcher, settings.redis)
    taking = slices.start()
    relay = Relay(base.database, base.qdrant, base.collections, base.listener, base.clock, settings.relay, base.metrics)
    every: dict[str, Chore] = {
        "relay": relay.run,
        "outbox-measure": partial(measure_outbox, base.database, base.clock, base.metrics),
        "old-answers": partial(forget_old_answers, base.database, base.clock),
        **(chores or {}),
    }
    running = [asyncio.create_task(chore(), name=name) for name, chore in every.items()]
    return WorkerProcess(slices, health, [taking, *running])
