"""Fixtures of the foundations' tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from shared.config import Settings
from shared.foundation import Foundation, WorkerProcess, open_foundation, start_worker
from shared.jobs.execution import JobHandler, SliceExecutor
from tests.integration.conftest import Running
from tests.integration.foundations.clock import StillClock
from tests.integration.foundations.items import KIND, SERVICE, make_items_table
from tests.integration.library import SeededFaces, random_vectors, seed_faces

MakeExecutor = Callable[[JobHandler], SliceExecutor]
StartItemsWorker = Callable[[JobHandler], Awaitable[WorkerProcess]]


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
async def items_table(base: Foundation) -> None:
    await make_items_table(base.database)


@pytest.fixture
def executor(base: Foundation, clock: StillClock) -> MakeExecutor:
    """Makes executors of the items' jobs that run a slice when told, by the test's own clock."""

    def make(handler: JobHandler) -> SliceExecutor:
        return SliceExecutor({KIND: handler}, base.database, clock, base.ids, base.settings.jobs)

    return make


@pytest.fixture
def worker(running: Running) -> StartItemsWorker:
    """Starts one more whole worker, relay and all, that has the given handler for the items' jobs."""

    async def start_one(handler: JobHandler) -> WorkerProcess:
        async def start(settings: Settings, stack: AsyncExitStack) -> WorkerProcess:
            return await start_worker(
                await open_foundation(settings, stack, "test.worker"), stack, SERVICE, {KIND: handler}
            )

        return await running.worker(start)

    return start_one


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(6))
