"""The job of many faces, watched from inside its steps: by a test's own executor, or as a worker to kill.

``python -m tests.integration.persons.standing_still STEP`` says ``inside`` once step STEP, counted from 0, has moved its faces,
and stands still before its checkpoint.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.persons.batch_jobs import AssignFacesHandler
from services.persons.domain.batching import ASSIGN_FACES
from services.persons.wiring import build_deps
from shared.config import Settings
from shared.db.engine import Transaction
from shared.foundation import Foundation, WorkerProcess, open_foundation, start_worker
from shared.jobs.execution import SliceExecutor, SliceRun
from shared.jobs.model import Job, Json, SliceResults
from shared.rpc.lifecycle import run_process

Watch = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WatchedHandler:
    """The real handler. ``before`` is awaited before each step begins, ``inside`` before it is committed, with its number."""

    inner: AssignFacesHandler
    before: Watch | None = None
    inside: Watch | None = None

    async def run(self, run: SliceRun) -> Json:
        """Run the slice."""
        real_step, steps = run.step, 0

        @asynccontextmanager
        async def watched_step() -> AsyncIterator[Transaction]:
            nonlocal steps
            if self.before is not None:
                await self.before(steps)
            async with real_step() as tx:
                yield tx
                if self.inside is not None:
                    await self.inside(steps)
            steps += 1

        run.step = watched_step  # type: ignore[method-assign]
        return await self.inner.run(run)

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Make the job's result."""
        return await self.inner.finish(tx, job, results)


def make_executor(base: Foundation, before: Watch | None = None) -> SliceExecutor:
    """Runs the job's slice by hand, without a queue."""
    handler = WatchedHandler(AssignFacesHandler(build_deps(base)), before=before)
    return SliceExecutor({ASSIGN_FACES: handler}, base.database, base.clock, base.ids, base.settings.jobs)


async def start(settings: Settings, stack: AsyncExitStack) -> WorkerProcess:
    """Start a worker that stands still."""
    stops_at = int(sys.argv[1])

    async def stand_still(step: int) -> None:
        if step == stops_at:
            sys.stdout.write("inside\n")
            sys.stdout.flush()
            await asyncio.Event().wait()

    base = await open_foundation(settings, stack, "test.standing_still")
    inner = AssignFacesHandler(build_deps(base))
    return await start_worker(base, stack, "persons", {ASSIGN_FACES: WatchedHandler(inner, inside=stand_still)})


if __name__ == "__main__":
    sys.exit(run_process("test.standing_still", start))
