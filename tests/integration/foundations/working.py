"""Jobs in the hands of whole workers: held at an item, and watched until they end."""

from __future__ import annotations

import asyncio
from uuid import UUID

from shared.foundation import Foundation
from shared.jobs.execution import SliceRun
from shared.jobs.model import JobState
from tests.integration.conftest import eventually
from tests.integration.foundations.items import read_job


class Gate:
    """Lets a handler come to one item and no further until opened."""

    def __init__(self, item: int) -> None:
        self._item = item
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _run: SliceRun, item: int) -> None:
        if item == self._item:
            self.reached.set()
            await self.open.wait()


async def ends(base: Foundation, job_id: UUID, state: JobState = JobState.SUCCEEDED) -> None:
    """Wait until a job has ended so; fails the test at once if it ends otherwise."""

    async def ended() -> bool:
        job = await read_job(base, job_id)
        assert not job.state.final or job.state is state, (job.state, job.error_reason, job.error_message)
        return job.state is state

    await eventually(ended)
