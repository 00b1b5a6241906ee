"""The process: opens the data folder, serves until told to stop, closes the folder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from qdrant_client import grpc as proto
from qdrant_client.grpc import collections_service_pb2, points_service_pb2, qdrant_pb2

from deploy.local.qdrant.catalogue import Catalogue
from deploy.local.qdrant.collections import CollectionsService
from deploy.local.qdrant.errors import StartupError
from deploy.local.qdrant.points import PointsService
from deploy.local.qdrant.rpc import EngineThread, Method, bind_service

LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes of one gRPC message, either way."""

_FLUSH_SECONDS = 5.0  # a server's own default; it bounds how much of the log is replayed after a crash
_GRACE_SECONDS = 5.0


async def serve(folder: Path, port: int, stop: asyncio.Event, announce: Callable[[], None]) -> None:
    """Serve `folder` on the loopback address until `stop` is set, then flush and close it.

    Calls `announce` once, when the first call would be answered.

    Raises:
        StartupError: the folder or the port cannot be used.
    """
    engine = EngineThread()
    try:
        catalogue = await engine.run(Catalogue, folder)
        try:
            await _serve_catalogue(catalogue, engine, port, stop, announce)
        finally:
            await engine.run(catalogue.close)
    finally:
        engine.close()


async def _serve_catalogue(
    catalogue: Catalogue, engine: EngineThread, port: int, stop: asyncio.Event, announce: Callable[[], None]
) -> None:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
            ("grpc.so_reuseport", 0),  # or a second process would share the port in silence
        ]
    )
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    server.add_generic_rpc_handlers(
        (
            bind_service(
                _service(points_service_pb2.DESCRIPTOR, "Points"),
                PointsService(catalogue).methods(),
                engine.run,
            ),
            bind_service(
                _service(collections_service_pb2.DESCRIPTOR, "Collections"),
                CollectionsService(catalogue).methods(),
                engine.run,
            ),
            bind_service(_service(qdrant_pb2.DESCRIPTOR, "Qdrant"), {"HealthCheck": _check_health}, _answer_at_once),
        )
    )
    try:
        server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError as error:
        raise StartupError(f"port {port} of 127.0.0.1 cannot be used: {error}") from error
    await server.start()
    await health_service.set("", health_pb2.HealthCheckResponse.SERVING)
    announce()
    try:
        await _flush_until(stop, catalogue, engine)
    finally:
        await health_service.enter_graceful_shutdown()
        await server.stop(_GRACE_SECONDS)


async def _flush_until(stop: asyncio.Event, catalogue: Catalogue, engine: EngineThread) -> None:
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await stop.wait()
        await engine.run(catalogue.flush)


def _check_health(_: proto.HealthCheckRequest) -> proto.HealthCheckReply:
    title = f"embedded Qdrant over qdrant-edge-py {version('qdrant-edge-py')}"
    return proto.HealthCheckReply(title=title, version=version("qdrant-client"))


async def _answer_at_once(method: Method, request: Any) -> Any:
    return method(request)


def _service(file: FileDescriptor, name: str) -> ServiceDescriptor:
    return file.services_by_name[name]
