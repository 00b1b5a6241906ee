"""The detection worker: ``python -m services.detection.worker``. It has photos looked at by the servers and loads no model."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from services.detection.adapters.crops import RemoteCrops
from services.detection.adapters.lookers import ActiveLooker, open_fleets
from services.detection.domain import migrating, sessions
from services.detection.domain.model import DetectionDeps
from services.detection.forgetting_jobs import ForgetFacesHandler
from services.detection.jobs import DetectAssets
from services.detection.mending_jobs import build_mending
from services.detection.migration_jobs import MigrateModel
from shared.config import Settings
from shared.foundation import Foundation, WorkerProcess, open_foundation, start_worker
from shared.jobs.execution import JobHandler
from shared.jobs.forgetting import FORGET_FACES
from shared.rpc.lifecycle import run_process
from shared.vectors.reconcile import Comparison


async def start(settings: Settings, stack: AsyncExitStack) -> WorkerProcess:
    base = await open_foundation(settings, stack, "detection.worker")
    return await start_worker(base, stack, "detection", open_handlers(base, stack))


def open_handlers(base: Foundation, stack: AsyncExitStack) -> dict[str, JobHandler]:
    """Handlers of this service's jobs, by kind, with channels to the detection servers that end with ``stack``."""
    fleets = open_fleets(base.settings, stack)
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    # Two photos on trial at once could be taken for each other, whichever jobs they are of.
    trial = asyncio.Lock()
    return {
        sessions.JOB_KIND: DetectAssets(base.database, deps, ActiveLooker(base.database, fleets), trial),
        migrating.JOB_KIND: MigrateModel(base.database, deps, fleets, trial),
        FORGET_FACES: ForgetFacesHandler(base.database, deps, RemoteCrops(base.settings)),
        **build_mending(base.database, base.clock, base.collections, Comparison(base.qdrant, base.collections)),
    }


if __name__ == "__main__":
    sys.exit(run_process("detection.worker", start))
