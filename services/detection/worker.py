"""The detection worker: ``python -m services.detection.worker``."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from services.detection.wiring import open_handlers
from shared.config import Settings
from shared.foundation import WorkerProcess, open_foundation, start_worker
from shared.rpc.lifecycle import run_process


async def start(settings: Settings, stack: AsyncExitStack) -> WorkerProcess:
    base = await open_foundation(settings, stack, "detection.worker")
    return await start_worker(base, stack, "detection", open_handlers(base, stack))


if __name__ == "__main__":
    sys.exit(run_process("detection.worker", start))
