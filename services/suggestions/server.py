"""The suggestions server: ``python -m services.suggestions.server``."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from services.suggestions.wiring import add_services
from shared.config import Settings
from shared.foundation import build_server, open_foundation
from shared.rpc.lifecycle import run_process
from shared.rpc.server import RpcServer


async def start(settings: Settings, stack: AsyncExitStack) -> RpcServer:
    base = await open_foundation(settings, stack, "suggestions.server")
    server = await build_server(base, stack, "suggestions")
    add_services(server, base, stack)
    await server.start()
    return server


if __name__ == "__main__":
    sys.exit(run_process("suggestions.server", start))
