"""The detection server: ``python -m services.detection.server``.

It answers NOT_SERVING on its health port while the model loads, and opens its main port when that is there.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from services.detection.inference.engine import FaceEngine
from services.detection.model_slot import ModelSlot
from services.detection.wiring import add_services, open_threads
from shared.config import Settings
from shared.foundation import build_server, open_foundation
from shared.rpc.lifecycle import run_process
from shared.rpc.server import RpcServer


async def start(settings: Settings, stack: AsyncExitStack) -> RpcServer:
    base = await open_foundation(settings, stack, "detection.server")
    slot = ModelSlot(base.collections)
    checks = {"model": slot.check_model, "collections": slot.check_collections}
    server = await build_server(base, stack, "detection", checks)
    engine = await FaceEngine.load(settings)
    stack.push_async_callback(engine.close, drain=False)
    slot.fill(engine)
    add_services(server, base, engine, open_threads(stack))
    await server.start()
    return server


if __name__ == "__main__":
    sys.exit(run_process("detection.server", start))
