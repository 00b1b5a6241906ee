"""The suggestions worker: ``python -m services.suggestions.worker``."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from services.suggestions.wiring import build_chores, build_handlers
from shared.config import Settings
from shared.foundation import WorkerProcess, open_foundation, start_worker
from shared.rpc.lifecycle import run_process


async def start(settings: Settings, stack: AsyncExitStack) -> WorkerProcess:
    base = await open_foundation(settings, stack, "suggestions.worker")
    return await start_worker(base, stack, "suggestions", build_handlers(base, stack), build_chores(base))


if __name__ == "__main__":
    sys.exit(run_process("suggestions.worker", start))
