"""ForgetPerson while others work with the person: what they had begun is found, and goes, too."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select

from services.detection import forgetting_jobs
from services.detection.domain.model import DetectionDeps
from services.detection.domain.ports import CropsSwept
from services.detection.forgetting_jobs import ForgetFacesHandler
from shared.db.outbox import PointKind, queue_points
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments, changes
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler, SliceRun
from shared.jobs.forgetting import FORGET_FACES
from shared.jobs.model import Job, Json, SliceResults
from tests.integration.conftest import eventually
from tests.integration.library import MODEL
from tests.integration.persons.client import PersonsClient
from tests.integration.persons.forgetting import OLD_MODEL, NoCrops, World, make_handlers, working
from tests.integration.persons.forgotten import assert_nothing_left, stores_of
from tests.integration.waiting import somebody_waits


async def test_faces_that_somebody_else_deletes_meanwhile_end_nothing(
    client: PersonsClient, world: World, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting_jobs, "BATCH", 1)
    job = await client.forget(world.her, await client.etag(world.her), delete_faces=True)

    async with working(base, make_handlers(base)):
        async with base.database.transaction() as tx:
            await tx.execute(select(assets).where(assets.c.asset_id == world.seeded.asset_ids[0]).with_for_update())
            await eventually(lambda: somebody_waits(base))
            # All that the first batch has found.
            first = world.seeded.face_ids[0]
            await tx.execute(delete(faces).where(faces.c.face_id == first))
            await queue_points(tx, base.clock, PointKind.FACE, "default", [(first, MODEL), (first, OLD_MODEL)])
        stores = stores_of(await client.ended(job))
    assert stores["postgres.faces"] == 6
    await assert_nothing_left(base, world)
    gone = [world.seeded.face_ids[number] for number in (0, 1, 2, 3, 4, 6, 7)]
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(faces.c.face_id == func.any(gone))) == 0


async def test_a_face_given_once_their_faces_were_deleted_is_deleted_too(
    client: PersonsClient, world: World, base: Foundation
) -> None:
    late = world.seeded.face_ids[20]
    sweeps = 0

    class Sweeping(NoCrops):
        """While the first sweep is under way somebody who had begun before says that a face is hers."""

        async def sweep(self, library_id: str) -> CropsSwept:
            nonlocal sweeps
            sweeps += 1
            if sweeps == 1:
                await give(base, late, world.her)
            return await super().sweep(library_id)

    class Giving:
        """Somebody does so once detection has ended."""

        def __init__(self, handler: JobHandler) -> None:
            self._handler = handler

        async def run(self, run: SliceRun) -> Json:
            return await self._handler.run(run)

        async def finish(self, tx: Any, job: Job, results: SliceResults) -> Json:
            if sweeps == 2:
                await give(base, world.seeded.face_ids[21], world.her)
            return await self._handler.finish(tx, job, results)

    handlers = make_handlers(base)
    detection = DetectionDeps(base.clock, base.ids, base.settings.detection)
    handlers[FORGET_FACES] = Giving(ForgetFacesHandler(base.database, detection, Sweeping()))
    job = await client.forget(world.her, await client.etag(world.her), delete_faces=True)
    async with working(base, handlers):
        stores = stores_of(await client.ended(job))
    assert (stores["postgres.faces"], stores["postgres.assignments"], sweeps) == (9, 0, 3)
    await assert_nothing_left(base, world)


async def give(base: Foundation, face_id: UUID, person_id: str) -> None:
    """Assign a face past every rule."""
    async with base.database.transaction() as tx:
        row = {
            "face_id": face_id,
            "library_id": "default",
            "person_id": UUID(person_id),
            "source": "HUMAN",
            "confidence": 1.0,
            "version": 1,
            "change_id": await tx.scalar(select(changes.c.change_id).limit(1)),
            "assigned_at": base.clock.now(),
        }
        await tx.execute(insert(assignments), row)
