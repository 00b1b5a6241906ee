"""When the detection server serves, and how its collections come to be."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from services.detection.inference.faces import ModelInfo
from services.detection.model_slot import ModelSlot
from services.detection.prepare import prepare_collections
from services.detection.server import start
from shared.config import Settings
from shared.errors import PreconditionFailed, Unavailable
from shared.foundation import Foundation
from tests.integration.detection.test_interruptions import environment
from tests.integration.probing import check_health

ROOT = Path(__file__).resolve().parents[3]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_serving_begins_with_the_collections(settings: Settings, stack: AsyncExitStack) -> None:
    server = await start(settings, stack)
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}"))
    assert not await server.readiness.check_now()
    assert (await check_health(channel)).status == NOT_SERVING
    assert len(await prepare_collections(settings)) == 2
    await server.readiness.wait_serving()
    service = "kith.detection.v1.FaceService"
    assert (await check_health(channel, service)).status == SERVING
    assert await prepare_collections(settings) == []


async def test_what_is_missing_is_said(base: Foundation) -> None:
    slot = ModelSlot(base.collections)
    for check in (slot.check_model, slot.check_collections):
        with pytest.raises(Unavailable, match="loading"):
            await check()


async def test_prepare_needs_permission_and_is_done_once(settings: Settings, base: Foundation, pack: ModelInfo) -> None:
    async def prepare(*arguments: str, allowed: str = "false") -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.detection.prepare",
            *arguments,
            cwd=ROOT,
            env={**environment(settings), "KITH_QDRANT_ALLOW_DESTRUCTIVE": allowed},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    code, output = await prepare("--help")
    assert code == 0
    assert "KITH_QDRANT_ALLOW_DESTRUCTIVE" in output
    code, output = await prepare()
    assert code == 1
    assert "KITH_QDRANT_ALLOW_DESTRUCTIVE=true" in output
    with pytest.raises(PreconditionFailed, match="is missing"):
        await base.collections.check(pack.version, pack.dimension)
    code, output = await prepare(allowed="true")
    assert code == 0, output
    await base.collections.check(pack.version, pack.dimension)


async def run_server(settings: Settings, pack: ModelInfo) -> asyncio.subprocess.Process:
    """The server as a process of its own, its log lines on its standard output."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.detection.server",
        cwd=ROOT,
        env={**environment(settings), "KITH_MODEL_VERSION": pack.version},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_a_model_of_another_dimension_ends_the_process_with_both_numbers(
    settings: Settings, base: Foundation, pack: ModelInfo
) -> None:
    await base.collections.create_missing(pack.version, pack.dimension + 8)
    process = await run_server(settings, pack)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 1, output
    said = [line for line in output.decode().splitlines() if "could not start" in line]
    assert len(said) == 1, output
    assert f"vectors of {pack.dimension + 8} numbers, the model makes {pack.dimension}" in said[0]


async def test_an_index_that_is_away_keeps_no_server_from_serving(
    settings: Settings, stack: AsyncExitStack, pack: ModelInfo, unused_tcp_port: int
) -> None:
    qdrant = settings.qdrant.model_copy(update={"url": f"http://127.0.0.1:{unused_tcp_port}"})
    server = await start(settings.model_copy(update={"qdrant": qdrant}), stack)
    assert server.port
    assert await server.readiness.check_now()
