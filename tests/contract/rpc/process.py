"""A process for ``test_lifecycle``: ``run_process`` around a small real server, told over stdin, telling over stdout."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

from shared.config import Settings
from shared.rpc.lifecycle import run_process


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def told() -> str:
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


async def serve(settings: Settings, stack: AsyncExitStack) -> Any:
    # Imported here because most scenarios need no server, and loading it takes longer than they do.
    from small_server import build_server  # type: ignore[import-not-found, unused-ignore]

    server = build_server(settings, tell=tell, told=told)
    stack.callback(tell, "first opened, last closed")
    stack.push_async_callback(server.close)
    stack.callback(tell, "last opened, first closed")
    await server.start()
    tell(f"{server.port} {server.health_port}")
    return server


async def start_slowly(_settings: Settings, stack: AsyncExitStack) -> Any:
    stack.callback(tell, "closed")
    tell("starting")
    await asyncio.Event().wait()
    raise AssertionError("nothing sets that event")


async def fail_to_start(_settings: Settings, stack: AsyncExitStack) -> Any:
    stack.callback(tell, "closed")
    raise ConnectionRefusedError("postgresql://kith:pass@db:5432/kith refused")


class Dying:
    """Ends by itself."""

    async def drain(self) -> None:
        tell("drained")

    async def wait(self) -> None:
        raise RuntimeError("the worker's loop has ended")


async def die(_settings: Settings, _stack: AsyncExitStack) -> Dying:
    return Dying()


class Deaf:
    """Never ends, whoever asks; has no ``wait``."""

    async def drain(self) -> None:
        tell("draining")
        await asyncio.Event().wait()


async def be_deaf(_settings: Settings, _stack: AsyncExitStack) -> Deaf:
    tell("started")
    return Deaf()


STARTS: dict[str, Any] = {
    "serve": serve,
    "slow": start_slowly,
    "fail": fail_to_start,
    "die": die,
    "deaf": be_deaf,
}

if __name__ == "__main__":
    sys.exit(run_process("process", STARTS[sys.argv[1]]))
