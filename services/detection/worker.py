"""The detection worker: ``python -m services.detection.worker``. It has photos looked at by the servers and loads no model."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from services.detection.adapters.looker import GrpcLooker
from services.detection.domain.model import DetectionDeps
from services.detection.domain.sessions import JOB_KIND
from services.detection.jobs import DetectAssets
from shared.config import Settings
from shared.foundation import Foundation, WorkerProcess, open_foundation, start_worker
from shared.jobs.execution import JobHandler
from shared.rpc.channel import open_channel
from shared.rpc.lifecycle import run_process


async def start(settings: Settings, stack: AsyncExitStack) -> WorkerProcess:
    base = await open_foundation(settings, stack, "detection.worker")
    return await start_worker(base, stack, "detection", open_handlers(base, stack))


def open_handlers(base: Foundation, stack: AsyncExitStack) -> dict[str, JobHandler]:
    """Handlers of this service's jobs, by kind, with a channel to the detection servers that ends with ``stack``."""
    channel = open_channel(base.settings.services.detection, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(channel.close)
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    return {JOB_KIND: DetectAssets(base.database, deps, GrpcLooker(channel))}


if __name__ == "__main__":
    sys.exit(run_process("detection.worker", start))
