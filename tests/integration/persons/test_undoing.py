"""Undos that meet others: persons of whom the undone change says nothing, and whoever scrubs the ledger at that moment."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import delete, select, text

from kith.persons.v1 import assignments_pb2, changes_pb2
from services.persons.server import start
from shared.db.tables_persons import changes
from shared.db.tables_shared import job_slices, jobs
from shared.foundation import Foundation
from shared.jobs.asking import FOLLOW_PEOPLE
from tests.integration.conftest import Running, eventually
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.stubs import PersonsStubs


@pytest.fixture
async def stubs(running: Running) -> PersonsStubs:
    return PersonsStubs(await running.server("persons", start))


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(3))


async def list_about(stubs: PersonsStubs, person_id: str) -> list[str]:
    """The changes about a person, newest first."""
    answer = await stubs.changes.ListChanges(changes_pb2.ListChangesRequest(person_id=person_id))
    return [change.id for change in answer.changes]


async def test_a_face_that_is_taken_from_the_survivor_is_in_their_history(
    stubs: PersonsStubs, seeded: SeededFaces, base: Foundation
) -> None:
    anna, eve = await stubs.create("Anna"), await stubs.create("Eve", seeded.face_ids[1:])
    assigned = (await stubs.assign(seeded.face_ids[0], anna)).change_id
    await stubs.merge(anna, eve)
    async with base.database.transaction() as tx:
        await tx.execute(delete(jobs))
    undone = await stubs.undo(assigned)
    assert (undone.reverted_count, set(undone.change.person_ids)) == (1, {anna, eve})
    assert (await list_about(stubs, eve))[0] == undone.change.id
    # Questions about her may rest on the face.
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(job_slices.c.spec).join(jobs).where(jobs.c.kind == FOLLOW_PEOPLE))
    assert eve in {person_id for row in rows for person_id in row.spec["person_ids"]}
    redone = await stubs.undo(undone.change.id)
    assert (redone.reverted_count, set(redone.change.person_ids)) == (1, {anna, eve})
    assert (await stubs.get(eve)).face_count == 3


async def test_an_exclusion_that_is_taken_from_the_survivor_or_given_to_them_is_in_their_history(
    stubs: PersonsStubs, seeded: SeededFaces
) -> None:
    anna, eve = await stubs.create("Anna"), await stubs.create("Eve")
    made = await stubs.exclude(seeded.face_ids[0], anna)
    excluded = (await list_about(stubs, anna))[0]
    kept = await stubs.exclude(seeded.face_ids[1], anna)
    request = assignments_pb2.DeleteExclusionRequest(exclusion_id=kept)
    taken_back = (await stubs.assignments.DeleteExclusion(request)).change_id
    await stubs.merge(anna, eve)
    taken = await stubs.undo(excluded)
    assert (taken.reverted_count, set(taken.change.person_ids)) == (1, {anna, eve})
    given = await stubs.undo(taken_back)
    assert (given.reverted_count, set(given.change.person_ids)) == (1, {anna, eve})
    assert (await list_about(stubs, eve))[:2] == [given.change.id, taken.change.id]
    listed = await stubs.assignments.ListExclusions(assignments_pb2.ListExclusionsRequest(person_id=eve))
    assert [each.id for each in listed.exclusions] == [kept] != [made]


async def test_an_undo_of_an_undo_waits_for_who_scrubs_the_ledger_and_is_not_waited_for(
    stubs: PersonsStubs, seeded: SeededFaces, base: Foundation
) -> None:
    assigned = (await stubs.assign(seeded.face_ids[0], await stubs.create("Anna"))).change_id
    undone = (await stubs.undo(assigned)).change.id

    async def somebody_waits() -> bool:
        async with base.database.transaction() as tx:
            return bool(await tx.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    async with base.database.transaction() as tx:
        for change_id in sorted((assigned, undone)):
            locked = select(changes.c.change_id).where(changes.c.change_id == UUID(change_id))
            await tx.execute(locked.with_for_update(key_share=True, nowait=True))
            if change_id == assigned:
                redoing = asyncio.create_task(stubs.undo(undone))
                await eventually(somebody_waits)
    redone = await redoing
    assert (redone.reverted_count, redone.change.undoes) == (1, undone)
    assert (await stubs.read_change(assigned)).undone_by == ""
