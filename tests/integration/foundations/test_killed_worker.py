"""A whole worker that is killed in the middle of a step."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from shared.foundation import Foundation
from tests.integration.foundations.conftest import StartItemsWorker
from tests.integration.foundations.items import ItemsHandler, read_job, start_items_job, stored_items
from tests.integration.foundations.working import ends

pytestmark = pytest.mark.usefixtures("items_table")

ROOT = Path(__file__).parents[3]


def worker_environment(base: Foundation) -> dict[str, str]:
    settings = base.settings
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared" / "gen")]),
        "KITH_ENVIRONMENT": "test",
        "KITH_DATABASE_URL": settings.database.url.get_secret_value(),
        "KITH_REDIS_URL": settings.redis.url.get_secret_value(),
        "KITH_REDIS_QUEUE_PREFIX": settings.redis.queue_prefix,
        "KITH_QDRANT_URL": settings.qdrant.url,
        "KITH_QDRANT_PREFIX": settings.qdrant.prefix,
        "KITH_RPC_HEALTH_PORT": "0",
        "KITH_JOBS_LEASE_S": str(settings.jobs.lease_s),
        "KITH_JOBS_HEARTBEAT_S": str(settings.jobs.heartbeat_s),
    }


async def test_after_kill_9_in_the_middle_of_a_step_another_worker_finishes(
    base: Foundation, worker: StartItemsWorker
) -> None:
    job_id = await start_items_job(base, 8)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.foundations.killable_worker",
        "5",
        cwd=ROOT,
        env=worker_environment(base),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            # The log is on stdout too.
            while (line := await process.stdout.readline()).strip() != b"inside":
                assert line, "the worker ended before it reached the item"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await stored_items(base, job_id) == list(range(5))
    await worker(ItemsHandler())
    await ends(base, job_id)
    job = await read_job(base, job_id)
    assert (job.done, await stored_items(base, job_id)) == (8, list(range(8)))
