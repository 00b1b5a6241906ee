"""DeleteExclusion."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from kith.persons.v1 import assignments_pb2, changes_pb2
from shared.errors import NotFound, PreconditionFailed
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(2))


async def take_back(client: PersonsClient, exclusion_id: str, library_id: str = "") -> str:
    request = assignments_pb2.DeleteExclusionRequest(
        library_id=library_id, exclusion_id=exclusion_id, reason="it is her after all"
    )
    async with translate_errors("persons"):
        return (await client.assignments.DeleteExclusion(request)).change_id


async def test_a_face_may_be_the_persons_again_and_the_ledger_says_who_allowed_it(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    anna, face_id = await client.create("Anna"), seeded.face_ids[0]
    exclusion_id = (await client.exclude(face_id, anna)).exclusion.id
    change = await client.get_change(await take_back(client, exclusion_id))
    assert change.kind == changes_pb2.CHANGE_KIND_EXCLUSION_DELETED
    assert (change.reason, list(change.face_ids), list(change.person_ids)) == (
        "it is her after all",
        [str(face_id)],
        [anna],
    )
    await client.assign(face_id, anna)


async def test_undone_it_stands_again_under_its_own_id(client: PersonsClient, seeded: SeededFaces) -> None:
    anna, face_id = await client.create("Anna"), seeded.face_ids[0]
    exclusion_id = (await client.exclude(face_id, anna)).exclusion.id
    await client.undo(await take_back(client, exclusion_id))
    with pytest.raises(PreconditionFailed):
        await client.assign(face_id, anna)
    assert (await client.exclude(face_id, anna)).exclusion.id == exclusion_id


async def test_of_many_who_take_one_back_one_does(client: PersonsClient, seeded: SeededFaces) -> None:
    exclusion_id = (await client.exclude(seeded.face_ids[0], await client.create("Anna"))).exclusion.id
    outcomes = await asyncio.gather(*(take_back(client, exclusion_id) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, NotFound) for outcome in outcomes) == 7


async def test_one_that_was_never_made_or_is_another_librarys_is_not_found(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    exclusion_id = (await client.exclude(seeded.face_ids[0], await client.create("Anna"))).exclusion.id
    with pytest.raises(NotFound):
        await take_back(client, str(uuid4()))
    with pytest.raises(NotFound):
        await take_back(client, exclusion_id, "other")
