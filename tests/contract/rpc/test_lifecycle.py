"""A process starts, is told to stop, and leaves: with real signals to a real process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

import shared

pytestmark = pytest.mark.asyncio

Process = asyncio.subprocess.Process
Spawn = Callable[..., Awaitable[Process]]
ROOT = Path(shared.__file__).parent.parent
SCRIPT = Path(__file__).with_name("process.py")


@pytest_asyncio.fixture
async def spawn() -> AsyncIterator[Spawn]:
    processes: list[Process] = []

    async def start(scenario: str, **environment: str) -> Process:
        own = {key: value for key, value in os.environ.items() if not key.startswith("KITH_")}
        ports = {"KITH_RPC_PORT": "0", "KITH_RPC_HEALTH_PORT": "0"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SCRIPT),
            scenario,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**own, **ports, "PYTHONPATH": str(ROOT), **environment},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def end_of(process: Process) -> tuple[int, list[str], list[dict[str, Any]]]:
    """Exit code, what it still said, and its log."""
    out, log = await process.communicate()
    assert process.returncode is not None
    lines = [json.loads(line) for line in log.decode().splitlines() if line.startswith("{")]
    return process.returncode, out.decode().splitlines(), lines


async def test_a_signal_drains_closes_in_reverse_and_exits_0(spawn: Spawn) -> None:
    process = await spawn("serve")
    port, health_port = (await line_of(process)).split()
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{health_port}") as health_channel,
    ):
        get_slow: Any = channel.unary_unary(
            "/kith.process.v1.ProcessService/GetSlow", StringValue.SerializeToString, StringValue.FromString
        )
        call = asyncio.ensure_future(get_slow(StringValue(value="kept")))
        assert await line_of(process) == "inside"
        process.send_signal(signal.SIGTERM)
        health: Any = health_pb2_grpc.HealthStub(health_channel)
        async for reply in health.Watch(health_pb2.HealthCheckRequest()):
            if reply.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        assert (await call).value == "kept"
        code, said, log = await end_of(process)
    assert (code, said) == (0, ["last opened, first closed", "first opened, last closed"])
    assert [entry["event"] for entry in log if entry["event"] in {"stopping", "drained", "stopped"}] == [
        "stopping",
        "drained",
        "stopped",
    ]


async def test_a_second_signal_exits_at_once(spawn: Spawn) -> None:
    process = await spawn("deaf")
    assert await line_of(process) == "started"
    process.send_signal(signal.SIGTERM)
    assert await line_of(process) == "draining"
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 128 + signal.SIGTERM


async def test_a_signal_while_starting_closes_what_was_opened(spawn: Spawn) -> None:
    process = await spawn("slow")
    assert await line_of(process) == "starting"
    process.send_signal(signal.SIGINT)
    code, said, _log = await end_of(process)
    assert (code, said) == (0, ["closed"])


async def test_a_failed_start_is_one_line_without_secrets_and_exits_1(spawn: Spawn) -> None:
    code, said, log = await end_of(await spawn("fail"))
    assert (code, said) == (1, ["closed"])
    (entry,) = log
    assert (entry["event"], entry["level"], entry["process"]) == ("could not start", "error", "process")
    assert entry["error"] == "ConnectionRefusedError: postgresql://[redacted]@db:5432/kith refused"


async def test_wrong_settings_are_a_list_of_variables_and_exit_1(spawn: Spawn) -> None:
    wrong = {"KITH_RPC_PORT": "seventy", "KITH_JOBS_LEASE_S": "-1"}
    code, _said, log = await end_of(await spawn("serve", **wrong))
    (entry,) = log
    assert code == 1
    assert [item.split(":")[0] for item in entry["variables"]] == ["KITH_RPC_PORT", "KITH_JOBS_LEASE_S"]
    assert "seventy" not in str(entry)


async def test_a_process_that_ends_by_itself_has_failed(spawn: Spawn) -> None:
    code, said, log = await end_of(await spawn("die"))
    assert (code, said) == (1, ["drained"])
    (entry,) = [entry for entry in log if entry["event"] == "ended by itself"]
    assert "the worker's loop has ended" in entry["exception"]


async def test_a_taken_port_is_one_clear_line(spawn: Spawn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _said, log = await end_of(await spawn("serve", KITH_RPC_PORT=str(port)))
    assert code == 1
    (entry,) = [entry for entry in log if entry["event"] == "could not start"]
    assert f"process: cannot listen on 127.0.0.1:{port}" in entry["error"]
