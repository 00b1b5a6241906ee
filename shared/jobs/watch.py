"""Following a job: its state now, then each change, until it ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from uuid import UUID

from shared.config import JobSettings
from shared.db.engine import Database
from shared.db.notify import Channel, Listener
from shared.jobs.model import Job
from shared.jobs.repository import get_job


class JobWatch:
    """Follows jobs by notification, and by looking now and then in case one was lost."""

    def __init__(self, database: Database, listener: Listener, settings: JobSettings) -> None:
        self._database = database
        self._listener = listener
        self._settings = settings

    async def watch(self, library_id: str, job_id: UUID, after_revision: int) -> AsyncIterator[Job]:
        """The job at each revision above ``after_revision`` that is seen; ends after the final state.

        If the final state itself is not above ``after_revision``, ends at once. Raises :class:`NotFound`.
        """
        revision = after_revision
        async with self._listener.subscribe(Channel.JOBS, str(job_id)) as changes:
            while True:
                job = await self._read(library_id, job_id)
                if job.revision > revision:
                    revision = job.revision
                    yield job
                if job.state.final:
                    return
                await changes.wait(self._settings.watch_poll_s)

    async def wait(self, library_id: str, job_id: UUID, timeout_s: float) -> Job:
        """The job when it has ended, or as it is after ``timeout_s`` seconds."""
        deadline = time.monotonic() + timeout_s
        async with self._listener.subscribe(Channel.JOBS, str(job_id)) as changes:
            while True:
                job = await self._read(library_id, job_id)
                left = deadline - time.monotonic()
                if job.state.final or left <= 0:
                    return job
                await changes.wait(min(left, self._settings.watch_poll_s))

    async def _read(self, library_id: str, job_id: UUID) -> Job:
        async with self._database.transaction() as tx:
            return await get_job(tx, library_id, job_id)
