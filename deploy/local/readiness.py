"""Asking a process whether it is ready, in the protocol its real clients use."""

from __future__ import annotations

import asyncio
import os
from typing import assert_never

import asyncpg
import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from redis.asyncio import Redis
from redis.exceptions import RedisError

from deploy.local.plan import (
    Completes,
    GrpcServes,
    PostgresAnswers,
    QdrantAnswers,
    ReadyCheck,
    RedisAnswers,
    TcpListens,
)

PROBE_TIMEOUT_S = 2.0
# A fresh connection per probe: no pause after a failed one, and no proxy on the way to this very machine.
_CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


class NotReadyError(Exception):
    """The process does not serve yet; the message says what it answered."""


async def check_ready(check: ReadyCheck) -> None:
    """Return if the process serves; raise :class:`NotReadyError` if not, at the latest after ``PROBE_TIMEOUT_S``."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await _probe(check)
    except TimeoutError as error:
        raise NotReadyError(f"no answer within {PROBE_TIMEOUT_S:g} s") from error


async def _probe(check: ReadyCheck) -> None:
    match check:
        case PostgresAnswers(dsn=dsn):
            await _probe_postgres(dsn)
        case RedisAnswers(url=url):
            await _probe_redis(url)
        case QdrantAnswers(target=target):
            await _probe_qdrant(target)
        case GrpcServes(target=target):
            await _probe_grpc(target)
        case TcpListens(target=target):
            await _probe_tcp(target)
        case Completes():
            raise NotReadyError("it is ready when it has ended")
        case _:
            assert_never(check)


async def _probe_tcp(target: str) -> None:
    host, _, port = target.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise NotReadyError(f"{target}: {reason}") from error
    writer.close()
    # Closing is only a courtesy here; the connection was accepted, which is the answer.
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def _probe_postgres(dsn: str) -> None:
    try:
        connection = await asyncpg.connect(dsn, timeout=PROBE_TIMEOUT_S)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            await connection.close(timeout=PROBE_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NotReadyError(f"PostgreSQL: {error}") from error


async def _probe_redis(url: str) -> None:
    client = Redis.from_url(url, socket_connect_timeout=PROBE_TIMEOUT_S, socket_timeout=PROBE_TIMEOUT_S)
    try:
        await client.ping()
    except (OSError, RedisError) as error:
        raise NotReadyError(f"PING: {error}") from error
    finally:
        await client.aclose()


async def _probe_qdrant(target: str) -> None:
    # The request is an empty message and what the reply says does not matter: no need to import Qdrant's client.
    await _call(target, "/qdrant.Qdrant/HealthCheck", b"")


async def _probe_grpc(target: str) -> None:
    request = HealthCheckRequest(service="").SerializeToString()
    reply = HealthCheckResponse.FromString(await _call(target, "/grpc.health.v1.Health/Check", request))
    if reply.status != HealthCheckResponse.SERVING:
        raise NotReadyError(f"health: {HealthCheckResponse.ServingStatus.Name(reply.status)}")


async def _call(target: str, method: str, request: bytes) -> bytes:
    await _probe_tcp(target)
    async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        try:
            return await ask(request, timeout=PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise NotReadyError(f"{method}: {error.code().name} {error.details()}") from error
