"""A worker to kill: ``python -m tests.integration.foundations.killable_worker ITEM``.

It says ``inside`` and then stands still in the transaction of that item, after its row and before its checkpoint.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from shared.config import Settings
from shared.foundation import WorkerProcess, open_foundation, start_worker
from shared.jobs.execution import SliceRun
from shared.rpc.lifecycle import run_process
from tests.integration.foundations.items import KIND, SERVICE, ItemsHandler


async def start(settings: Settings, stack: AsyncExitStack) -> WorkerProcess:
    stops_at = int(sys.argv[1])

    async def stand_still(_run: SliceRun, item: int) -> None:
        if item == stops_at:
            sys.stdout.write("inside\n")
            sys.stdout.flush()
            await asyncio.Event().wait()

    base = await open_foundation(settings, stack, "test.killable")
    return await start_worker(base, stack, SERVICE, {KIND: ItemsHandler(inside=stand_still)})


if __name__ == "__main__":
    sys.exit(run_process("test.killable", start))
