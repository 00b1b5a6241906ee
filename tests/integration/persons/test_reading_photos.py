"""ListPersonPhotos: by date, each photo once, by whichever way the page is found."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, update

from kith.common.v1 import types_pb2
from kith.persons.v1 import persons_pb2 as pb
from services.persons.domain.model import PersonPhoto
from services.persons.repository.listing import read_survivor
from services.persons.repository.photos import STRIDE, list_photos
from shared.db.pagination import read_page_request
from shared.db.tables_detection import assets, faces
from shared.errors import InvalidRequest, KithError, NotFound, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient


async def read_all(client: PersonsClient, person_id: str, page_size: int = 100) -> list[pb.PersonPhoto]:
    """Every page of a person's photos."""
    found: list[pb.PersonPhoto] = []
    token = ""
    while True:
        async with translate_errors("persons"):
            page = await client.people.ListPersonPhotos(
                pb.ListPersonPhotosRequest(person_id=person_id, page_size=page_size, page_token=token)
            )
        found += page.photos
        token = page.next_page_token
        if not token:
            return found


async def walk_all(base: Foundation, person_id: str, page_size: int, walk_from_faces: int) -> list[PersonPhoto]:
    """Every page, found by walking for persons of so many faces."""
    found: list[PersonPhoto] = []
    token = ""
    while True:
        request = read_page_request(page_size, token, default=100, maximum=1000, filters="")
        async with base.database.transaction() as tx:
            person = await read_survivor(tx, "default", UUID(person_id))
            page = await list_photos(tx, person, request, walk_from_faces)
        found += page.items
        token = page.next_token
        if not token:
            return found


async def date_photos(base: Foundation, seeded: SeededFaces, drawn: random.Random) -> None:
    """Give the photos dates, some of them the same, and to some none."""
    first = datetime(2015, 1, 1, tzinfo=UTC)
    async with base.database.transaction() as tx:
        for name in sorted(set(seeded.asset_ids)):
            known = drawn.random() < 0.8
            at = first + timedelta(days=drawn.randrange(20)) if known else None
            values = {"captured_at": at, "captured_precision": "DAY" if known else None}
            await tx.execute(update(assets).where(assets.c.asset_id == name).values(values))


async def test_photos_come_by_date_each_once_with_the_persons_boxes(client: PersonsClient, base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(12), faces_per_photo=3)
    face, photo = seeded.face_ids, list(dict.fromkeys(seeded.asset_ids))
    # Twice in the first photo, once in the others; in each there are others too.
    anna = await client.create("Anna", [face[0], face[2], face[3], face[6], face[9]])
    await client.create("Bert", [face[4]])
    async with base.database.transaction() as tx:
        undated = update(assets).values(captured_at=None, captured_precision=None)
        await tx.execute(undated.where(assets.c.asset_id == photo[0]))
        year = datetime(2019, 1, 1, tzinfo=UTC)
        by_year = update(assets).values(captured_at=year, captured_precision="YEAR", captured_offset=60)
        await tx.execute(by_year.where(assets.c.asset_id == photo[3]))
        await tx.execute(update(faces).where(faces.c.face_id == face[6]).values(state="IGNORED"))
    found = await read_all(client, anna)
    # The photo of the ignored face is not Anna's; the undated one comes last.
    assert [row.asset_id for row in found] == [photo[3], photo[1], photo[0]]
    assert found[0].captured_at.precision == types_pb2.TIME_PRECISION_YEAR
    assert found[0].captured_at.utc_offset_minutes == 60
    assert found[1].captured_at.time.ToDatetime(tzinfo=UTC) == datetime(2020, 1, 2, tzinfo=UTC)
    assert not found[1].captured_at.HasField("utc_offset_minutes")
    assert not found[2].HasField("captured_at")
    # By face id, and ids of one millisecond are in no order of their own.
    assert [(row.face_id, row.box.x, row.box.width, row.box.height) for row in found[2].faces] == sorted(
        [(str(face[0]), 0.0, 80.0, 100.0), (str(face[2]), 200.0, 80.0, 100.0)]
    )


@pytest.mark.parametrize("seed", range(3))
async def test_walking_and_sorting_find_the_same_pages(client: PersonsClient, base: Foundation, seed: int) -> None:
    drawn = random.Random(seed)
    seeded = await seed_faces(base, random_vectors(240), faces_per_photo=2)
    await date_photos(base, seeded, drawn)
    chosen = [face_id for face_id in seeded.face_ids if drawn.random() < (0.5, 0.05, 0.9)[seed]]
    anna = await client.create("Anna", chosen)
    async with base.database.transaction() as tx:
        aside = drawn.sample(chosen, len(chosen) // 10)
        await tx.execute(update(faces).where(faces.c.face_id == func.any(aside)).values(state="NOT_A_FACE"))
    sorted_once = await walk_all(base, anna, 1000, 10**6)
    shown = {(face.face_id) for photo in sorted_once for face in photo.faces}
    assert shown == set(chosen) - set(aside)
    assert len({photo.asset_id for photo in sorted_once}) == len(sorted_once)
    key = [
        (row.captured_at is None, row.captured_at or datetime.max.replace(tzinfo=UTC), row.asset_id)
        for row in sorted_once
    ]
    assert key == sorted(key)
    for page_size in (1, 3, 7, 50):
        for walk_from_faces in (0, 10**6):
            assert await walk_all(base, anna, page_size, walk_from_faces) == sorted_once


async def test_a_walk_that_finds_nobody_in_its_stride_still_fills_the_page(
    client: PersonsClient, base: Foundation
) -> None:
    seeded = await seed_faces(base, random_vectors(3 * STRIDE))
    late = seeded.face_ids[-2:]
    anna = await client.create("Anna", late)
    found = await walk_all(base, anna, 1, 0)
    assert [face.face_id for photo in found for face in photo.faces] == late


async def test_of_a_merged_person_the_survivors_photos_are_shown(client: PersonsClient, base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(4))
    anne = await client.create("Anne", seeded.face_ids[:1])
    anna = await client.create("Anna", seeded.face_ids[1:3])
    await client.merge(anna, anne)
    assert len(await read_all(client, anna)) == 3
    assert await read_all(client, anne) == await read_all(client, anna)


async def test_who_is_unknown_or_put_away_has_no_photos_to_show(client: PersonsClient, base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(3))
    anna = await client.create("Anna", seeded.face_ids)
    for request in (
        pb.ListPersonPhotosRequest(person_id=str(uuid4())),
        pb.ListPersonPhotosRequest(library_id="other", person_id=anna),
    ):
        with pytest.raises(NotFound):
            async with translate_errors("persons"):
                await client.people.ListPersonPhotos(request)
    await client.delete(anna)
    with pytest.raises(NotFound):
        await read_all(client, anna)


async def test_what_is_wrong_is_named_and_a_token_belongs_to_its_person(
    client: PersonsClient, base: Foundation
) -> None:
    seeded = await seed_faces(base, random_vectors(4))
    anna = await client.create("Anna", seeded.face_ids[:3])
    bert = await client.create("Bert", seeded.face_ids[3:])
    first = await client.people.ListPersonPhotos(pb.ListPersonPhotosRequest(person_id=anna, page_size=1))
    for request, field in (
        (pb.ListPersonPhotosRequest(), "person_id"),
        (pb.ListPersonPhotosRequest(person_id="anna"), "person_id"),
        (pb.ListPersonPhotosRequest(person_id=anna, page_size=-1), "page_size"),
        (pb.ListPersonPhotosRequest(person_id=bert, page_token=first.next_page_token), "page_token"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            async with translate_errors("persons"):
                await client.people.ListPersonPhotos(request)
        assert refused.value.violations[0].field == field
    with pytest.raises(KithError) as mistaken:
        async with translate_errors("persons"):
            await client.people.ListPersonPhotos(
                pb.ListPersonPhotosRequest(person_id=bert, page_token=first.next_page_token)
            )
    assert mistaken.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_page_costs_two_statements_whatever_its_size(client: PersonsClient, base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(120), faces_per_photo=2)
    anna = await client.create("Anna", seeded.face_ids)
    for page_size in (1, 100):
        for walk_from_faces in (0, 10**6):
            request = read_page_request(page_size, "", default=100, maximum=1000, filters="")
            with recording_statements(base.database) as sent:
                async with base.database.transaction() as tx:
                    person = await read_survivor(tx, "default", UUID(anna))
                    page = await list_photos(tx, person, request, walk_from_faces)
            assert (len(page.items), len(sent)) == (min(page_size, 60), 2)
