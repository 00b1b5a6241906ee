"""Undos that meet others: persons of whom the undone change says nothing, and whoever scrubs the ledger at that moment."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import delete, select

from kith.persons.v1 import assignments_pb2, changes_pb2
from shared.db.tables_persons import changes
from shared.db.tables_shared import job_slices, jobs
from shared.foundation import Foundation
from shared.jobs.asking import FOLLOW_PEOPLE
from tests.integration.conftest import eventually
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient
from tests.integration.waiting import somebody_waits


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(3))


async def list_about(client: PersonsClient, person_id: str) -> list[str]:
    """The changes about a person, newest first."""
    answer = await client.changes.ListChanges(changes_pb2.ListChangesRequest(person_id=person_id))
    return [change.id for change in answer.changes]


async def test_a_face_that_is_taken_from_the_survivor_is_in_their_history(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    anna, eve = await client.create("Anna"), await client.create("Eve", seeded.face_ids[1:])
    assigned = (await client.assign(seeded.face_ids[0], anna)).change_id
    await client.merge(eve, anna)
    async with base.database.transaction() as tx:
        await tx.execute(delete(jobs))
    undone = await client.undo(assigned)
    assert (undone.reverted_count, set(undone.change.person_ids)) == (1, {anna, eve})
    assert (await list_about(client, eve))[0] == undone.change.id
    # Questions about her may rest on the face.
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(job_slices.c.spec).join(jobs).where(jobs.c.kind == FOLLOW_PEOPLE))
    assert eve in {person_id for row in rows for person_id in row.spec["person_ids"]}
    redone = await client.undo(undone.change.id)
    assert (redone.reverted_count, set(redone.change.person_ids)) == (1, {anna, eve})
    assert (await client.get(eve)).face_count == 3


async def test_an_exclusion_that_is_taken_from_the_survivor_or_given_to_them_is_in_their_history(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    anna, eve = await client.create("Anna"), await client.create("Eve")
    made = (await client.exclude(seeded.face_ids[0], anna)).exclusion.id
    excluded = (await list_about(client, anna))[0]
    kept = (await client.exclude(seeded.face_ids[1], anna)).exclusion.id
    request = assignments_pb2.DeleteExclusionRequest(exclusion_id=kept)
    taken_back = (await client.assignments.DeleteExclusion(request)).change_id
    await client.merge(eve, anna)
    taken = await client.undo(excluded)
    assert (taken.reverted_count, set(taken.change.person_ids)) == (1, {anna, eve})
    given = await client.undo(taken_back)
    assert (given.reverted_count, set(given.change.person_ids)) == (1, {anna, eve})
    assert (await list_about(client, eve))[:2] == [given.change.id, taken.change.id]
    listed = await client.assignments.ListExclusions(assignments_pb2.ListExclusionsRequest(person_id=eve))
    assert [each.id for each in listed.exclusions] == [kept] != [made]


async def test_an_undo_of_an_undo_waits_for_who_scrubs_the_ledger_and_is_not_waited_for(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    assigned = (await client.assign(seeded.face_ids[0], await client.create("Anna"))).change_id
    undone = (await client.undo(assigned)).change.id

    async with base.database.transaction() as tx:
        for change_id in sorted((assigned, undone)):
            locked = select(changes.c.change_id).where(changes.c.change_id == UUID(change_id))
            await tx.execute(locked.with_for_update(key_share=True, nowait=True))
            if change_id == assigned:
                redoing = asyncio.create_task(client.undo(undone))
                await eventually(lambda: somebody_waits(base))
    redone = await redoing
    assert (redone.reverted_count, redone.change.undoes) == (1, undone)
    assert (await client.get_change(assigned)).undone_by == ""
