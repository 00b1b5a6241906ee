"""What PostgreSQL tells of jobs: it spares everybody waiting, and nothing depends on its being heard."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from shared.db.notify import Channel
from shared.db.tables_shared import job_slices, jobs
from shared.foundation import Foundation
from shared.jobs.execution import SliceExecutor
from tests.integration.conftest import eventually
from tests.integration.foundations.conftest import StartItemsWorker
from tests.integration.foundations.items import KIND, ItemsHandler, start_items_job
from tests.integration.foundations.working import ends

pytestmark = pytest.mark.usefixtures("items_table")


async def test_without_any_notification_jobs_still_run(base: Foundation, worker: StartItemsWorker) -> None:
    await worker(ItemsHandler())
    # A job as NOTIFY would never have told of it.
    job_id = base.ids.new_uuid()
    async with base.database.transaction() as tx:
        await tx.execute(
            jobs.insert(),
            {
                "job_id": job_id,
                "library_id": "default",
                "kind": KIND,
                "spec": {},
                "unit": "item",
                "created_by": "tester",
                "created_at": base.clock.now(),
            },
        )
        await tx.execute(job_slices.insert(), {"job_id": job_id, "ordinal": 0, "spec": {"first": 0, "end": 3}})
    await ends(base, job_id)


async def test_the_listener_comes_back_and_wakes_everybody(base: Foundation) -> None:
    async with base.listener.subscribe(Channel.SLICES) as heard, base.database.transaction() as tx:
        # The listening connection is the one that is not in SQLAlchemy's pool and last ran LISTEN.
        async def listening() -> int:
            async with base.database.transaction() as other:
                found: int = await other.scalar(
                    text(
                        "SELECT count(*) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                    )
                )
            return found

        async def is_listening() -> bool:
            return await listening() == 1

        await eventually(is_listening)
        await heard.wait(0.1)
        await tx.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
        assert await heard.wait(20)


async def test_progress_does_not_wake_the_dispatchers(base: Foundation) -> None:
    job_id = await start_items_job(base, 3)
    executor = SliceExecutor({KIND: ItemsHandler()}, base.database, base.clock, base.ids, base.settings.jobs)
    async with (
        base.listener.subscribe(Channel.SLICES) as slices,
        base.listener.subscribe(Channel.JOBS, str(job_id)) as job,
    ):

        async def told() -> bool:
            await start_items_job(base, 1)
            return await slices.wait(0.2)

        await eventually(told)
        while await slices.wait(0.2):
            pass
        await executor.run_slice(job_id, 0)
        # Notifications come in order, so those of the slice's steps were heard before this one.
        assert await job.wait(20)
        assert not await slices.wait(0.2)
