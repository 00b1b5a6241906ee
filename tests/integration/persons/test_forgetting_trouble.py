"""ForgetPerson whose worker dies, again and again, and while Qdrant confirms nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, text

from services.persons.domain.forgetting import FORGET_PERSON, STAGES
from shared.db.tables_shared import idempotency_keys, job_slices
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler, SliceExecutor, SliceRun
from shared.jobs.model import Job, Json, SliceResults
from tests.integration.conftest import eventually
from tests.integration.persons.client import PersonsClient
from tests.integration.persons.forgetting import World, make_handlers, working
from tests.integration.persons.forgotten import assert_nothing_left, stores_of


class Killed(BaseException):
    """The worker dies: nobody gives the slice back, nobody says why."""


class DyingRun:
    """A slice whose worker dies right after its first step is committed."""

    def __init__(self, run: SliceRun) -> None:
        self._run = run
        self.slice = run.slice
        self.checkpoint = run.checkpoint

    @asynccontextmanager
    async def step(self) -> AsyncIterator[Any]:
        async with self._run.step() as tx:
            yield tx
        raise Killed


@dataclass(frozen=True, slots=True)
class Dying:
    """A handler that gets one step on each time."""

    handler: JobHandler

    async def run(self, run: SliceRun) -> Json:
        return await self.handler.run(DyingRun(run))  # type: ignore[arg-type]

    async def finish(self, tx: Any, job: Job, results: SliceResults) -> Json:
        return await self.handler.finish(tx, job, results)


async def test_it_survives_the_death_of_its_worker_at_every_step(
    client: PersonsClient, world: World, base: Foundation
) -> None:
    handlers = make_handlers(base)
    dying = SliceExecutor(
        {FORGET_PERSON: Dying(handlers.pop(FORGET_PERSON))}, base.database, base.clock, base.ids, base.settings.jobs
    )
    job = await client.forget(world.her, await client.etag(world.her), delete_faces=True)
    written = False
    deaths = 0
    stages = set()
    async with working(base, handlers):
        for _ in range(10 * len(STAGES)):
            if (await client.get_receipt(world.her)).HasField("complete_time"):
                break
            try:
                await dying.run_slice(UUID(job.id), 0)
            except Killed:
                deaths += 1
            async with base.database.transaction() as tx:
                checkpoint = await tx.scalar(select(job_slices.c.checkpoint).where(job_slices.c.job_id == UUID(job.id)))
                stages.add((checkpoint["round"], checkpoint["stage"]))
                if checkpoint["stage"] == "verify" and not written:
                    # Somebody who had begun before says something of her only now: it is found, and goes in another round.
                    written = True
                    answer = {
                        "library_id": "default",
                        "request_id": uuid4(),
                        "request_hash": b"x",
                        "response": world.her.encode(),
                        "created_at": base.clock.now(),
                    }
                    await tx.execute(insert(idempotency_keys), answer)
                # What the dead held is free once their time is over.
                await tx.execute(
                    text("UPDATE job_slices SET lease_until = now() - interval '1 s' WHERE job_id = :job_id"),
                    {"job_id": UUID(job.id)},
                )
        else:
            pytest.fail(f"no receipt after {deaths} deaths")
    assert deaths > 2 * len(STAGES)
    assert {stage for turn, stage in stages if turn == 2} >= set(STAGES)
    assert stores_of(await client.ended(job))["postgres.faces"] == 7
    await assert_nothing_left(base, world)


async def test_while_qdrant_confirms_nothing_there_is_no_receipt(
    client: PersonsClient, world: World, base: Foundation
) -> None:
    job = await client.forget(world.her, await client.etag(world.her), delete_faces=True)
    waits = "points of .* have waited for the relay"

    async def gave_up() -> bool:
        async with base.database.transaction() as tx:
            row = (await tx.rows(select(job_slices).where(job_slices.c.job_id == UUID(job.id))))[0]
        return row.checkpoint.get("stage") == "verify" and row.not_before is not None

    async with working(base, make_handlers(base, stalled_s=0.2), relay=False):
        await eventually(gave_up)
    assert not (await client.get_receipt(world.her)).HasField("complete_time"), waits
    async with working(base, make_handlers(base)):
        stores_of(await client.ended(job))
    await assert_nothing_left(base, world)
