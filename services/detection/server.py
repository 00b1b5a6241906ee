"""The detection server: ``python -m services.detection.server``.

It answers NOT_SERVING on its health port while the model loads, and opens its main port when that is there. A model that
cannot be loaded, or whose embeddings are no fit for its collections, ends the process.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from services.detection.inference.engine import FaceEngine
from services.detection.model_slot import ModelSlot
from services.detection.wiring import add_services, open_reader, open_threads
from shared.config import Settings
from shared.foundation import build_server, open_foundation
from shared.rpc.lifecycle import run_process
from shared.rpc.server import RpcServer


async def start(settings: Settings, stack: AsyncExitStack) -> RpcServer:
    base = await open_foundation(settings, stack, "detection.server")
    slot = ModelSlot(base.collections)
    checks = {"model": slot.check_model, "collections": slot.check_collections}
    server = await build_server(base, stack, "detection", checks)
    engine = await FaceEngine.load(settings, base.metrics)
    stack.push_async_callback(engine.close, drain=False)
    await slot.fill(engine)
    threads = open_threads(stack)
    add_services(server, base, stack, engine, threads, open_reader(base, stack, threads))
    await server.start()
    return server


if __name__ == "__main__":
    sys.exit(run_process("detection.server", start))
