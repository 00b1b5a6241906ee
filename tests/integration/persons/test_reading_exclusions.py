"""ListExclusions and ListAllowedDoubles."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from kith.persons.v1 import assignments_pb2 as pb
from shared.errors import InvalidRequest, KithError, NotFound, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(6))


async def list_all(client: PersonsClient, page_size: int = 100, **fields: Any) -> list[pb.Exclusion]:
    """Every page of the exclusions."""
    found: list[pb.Exclusion] = []
    token = ""
    while True:
        async with translate_errors("persons"):
            page = await client.assignments.ListExclusions(
                pb.ListExclusionsRequest(page_size=page_size, page_token=token, **fields)
            )
        found += page.exclusions
        token = page.next_page_token
        if not token:
            return found


async def test_exclusions_are_listed_by_person_and_face(client: PersonsClient, seeded: SeededFaces) -> None:
    anna, bert = await client.create("Anna"), await client.create("Bert")
    face = [str(face_id) for face_id in seeded.face_ids]
    pairs = [(face[0], anna), (face[0], bert), (face[1], anna), (face[2], bert)]
    ids = [
        (await client.exclude(seeded.face_ids[face.index(face_id)], person_id)).exclusion.id
        for face_id, person_id in pairs
    ]
    for fields, wanted in (
        ({}, [0, 1, 2, 3]),
        ({"person_id": anna}, [0, 2]),
        ({"face_id": face[0]}, [0, 1]),
        ({"person_id": bert, "face_id": face[0]}, [1]),
        ({"face_id": face[5]}, []),
        ({"library_id": "other"}, []),
    ):
        for page_size in (1, 100):
            found = await list_all(client, page_size, **fields)
            assert [row.id for row in found] == [ids[index] for index in wanted]
            assert [(row.face_id, row.person_id) for row in found] == [pairs[index] for index in wanted]
    (only,) = await list_all(client, person_id=bert, face_id=face[0])
    assert (only.library_id, only.created_by, only.HasField("create_time")) == ("default", "anonymous", True)


async def test_of_a_merged_person_what_is_excluded_from_the_survivor_is_shown(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    anne, anna = await client.create("Anne"), await client.create("Anna")
    await client.exclude(seeded.face_ids[0], anne)
    await client.exclude(seeded.face_ids[1], anna)
    await client.merge(anna, anne)
    found = await list_all(client, person_id=anne)
    assert {(row.face_id, row.person_id) for row in found} == {(str(face), anna) for face in seeded.face_ids[:2]}
    assert found == await list_all(client, person_id=anna)


async def test_whom_the_library_does_not_have_is_not_found(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna")
    wrong: list[dict[str, Any]] = [
        {"person_id": str(uuid4())},
        {"face_id": str(uuid4())},
        {"person_id": anna, "library_id": "other"},
        {"face_id": str(seeded.face_ids[0]), "library_id": "other"},
    ]
    for fields in wrong:
        with pytest.raises(NotFound):
            await list_all(client, **fields)


async def test_what_is_wrong_is_named(client: PersonsClient, seeded: SeededFaces) -> None:
    anna = await client.create("Anna")
    for face_id in seeded.face_ids[:2]:
        await client.exclude(face_id, anna)
    token = (await client.assignments.ListExclusions(pb.ListExclusionsRequest(page_size=1))).next_page_token
    for request, field in (
        (pb.ListExclusionsRequest(person_id="anna"), "person_id"),
        (pb.ListExclusionsRequest(face_id="1"), "face_id"),
        (pb.ListExclusionsRequest(page_size=-1), "page_size"),
        (pb.ListExclusionsRequest(person_id=anna, page_token=token), "page_token"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            async with translate_errors("persons"):
                await client.assignments.ListExclusions(request)
        assert refused.value.violations[0].field == field


async def test_photos_that_may_show_one_person_twice_are_listed(client: PersonsClient, seeded: SeededFaces) -> None:
    names = sorted(seeded.asset_ids)
    await client.assignments.AllowDoubles(pb.AllowDoublesRequest(asset_ids=names[:5], allowed=True))
    await client.assignments.AllowDoubles(pb.AllowDoublesRequest(asset_ids=names[1:2], allowed=False))
    found: list[str] = []
    token = ""
    while True:
        page = await client.assignments.ListAllowedDoubles(pb.ListAllowedDoublesRequest(page_size=2, page_token=token))
        found += page.asset_ids
        token = page.next_page_token
        if not token:
            break
    assert found == [names[0], *names[2:5]]
    assert not (await client.assignments.ListAllowedDoubles(pb.ListAllowedDoublesRequest(library_id="other"))).asset_ids
    first = await client.assignments.ListAllowedDoubles(pb.ListAllowedDoublesRequest(page_size=1))
    with pytest.raises(KithError) as refused:
        async with translate_errors("persons"):
            await client.assignments.ListAllowedDoubles(
                pb.ListAllowedDoublesRequest(library_id="other", page_token=first.next_page_token)
            )
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID
