"""Jobs to test with: each item becomes one row, in a table that would show an item done twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from sqlalchemy import select, text

from shared.db.engine import Database, Transaction
from shared.db.tables_shared import job_slices
from shared.foundation import Foundation
from shared.jobs.execution import SliceRun
from shared.jobs.model import ItemFailure, Job, Json, NewJob, Progress, SliceResults
from shared.jobs.repository import create_job, get_job

KIND = "test.items"
SERVICE = "test"

BeforeItem = Callable[[SliceRun, int], Awaitable[None]]


async def nothing(_run: SliceRun, _item: int) -> None:
    """The hook of a handler that just works."""


class ItemsHandler:
    """Stores the items ``first``..``end`` of a slice's spec, one step each.

    ``before`` is awaited before each step; ``inside`` in its transaction, between the item's row and the checkpoint. Items in
    ``failing`` are counted as failed.
    """

    def __init__(self, before: BeforeItem = nothing, inside: BeforeItem = nothing, failing: Sequence[int] = ()) -> None:
        self._before = before
        self._inside = inside
        self._failing = frozenset(failing)

    async def run(self, run: SliceRun) -> Json:
        spec = run.slice.spec
        first: int = run.slice.checkpoint["next"] if run.slice.checkpoint else spec["first"]
        for item in range(first, spec["end"]):
            await self._before(run, item)
            async with run.step() as tx:
                await tx.execute(
                    text("INSERT INTO test_items (job_id, item) VALUES (:job_id, :item)"),
                    {"job_id": run.slice.job_id, "item": item},
                )
                await self._inside(run, item)
                bad = item in self._failing
                failures = [ItemFailure(str(item), "IMAGE_UNREADABLE", f"item {item}")] if bad else []
                progress = Progress(done=1, failed=int(bad), phase="storing", failures=failures)
                await run.checkpoint(tx, progress, {"next": item + 1})
        return {"end": spec["end"]}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        return {"ends": [result["end"] for result in results], "done": job.done}


class RunHandler(ItemsHandler):
    """A handler whose work is one function."""

    def __init__(self, work: Callable[[SliceRun], Awaitable[Json]]) -> None:
        super().__init__()
        self._work = work

    async def run(self, run: SliceRun) -> Json:
        return await self._work(run)


async def make_items_table(database: Database) -> None:
    """The table the handler writes to. It has no key on purpose."""
    async with database.transaction() as tx:
        await tx.execute(text("CREATE TABLE test_items (job_id uuid, item integer)"))


async def start_items_job(base: Foundation, *sizes: int) -> UUID:
    """A job with one slice of each size; items are numbered through."""
    slices: list[Json] = []
    first = 0
    for size in sizes:
        slices.append({"first": first, "end": first + size})
        first += size
    new = NewJob("default", KIND, "item", slices, "tester", total=first)
    async with base.database.transaction() as tx:
        return (await create_job(tx, new, base.ids, base.clock)).job_id


async def read_job(base: Foundation, job_id: UUID) -> Job:
    """The job as it is now."""
    async with base.database.transaction() as tx:
        return await get_job(tx, "default", job_id)


async def stored_items(base: Foundation, job_id: UUID) -> list[int]:
    """Items in the table, in order; one that was done twice is there twice."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(
            text("SELECT item FROM test_items WHERE job_id = :job_id ORDER BY item"), {"job_id": job_id}
        )
    return [row.item for row in rows]


async def read_attempts(base: Foundation, job_id: UUID) -> int:
    """How often the job's one slice was begun since it last got on."""
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(job_slices.c.attempts).where(job_slices.c.job_id == job_id))
    return found
