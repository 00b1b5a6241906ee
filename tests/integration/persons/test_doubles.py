"""AllowDoubles: photos that may show one person twice."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import delete, func, select

from kith.persons.v1 import assignments_pb2
from services.persons.repository.doubles import lock_photos, read_doubles, write_doubles
from shared.db.tables_detection import assets
from shared.db.tables_persons import allowed_doubles, changes
from shared.errors import InvalidRequest, KithError, NotFound
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import eventually
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient
from tests.integration.waiting import somebody_waits


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(4))


async def allow(client: PersonsClient, asset_ids: list[str], allowed: bool = True) -> str:
    request = assignments_pb2.AllowDoublesRequest(asset_ids=asset_ids, allowed=allowed, reason="a mirror")
    async with translate_errors("persons"):
        return (await client.assignments.AllowDoubles(request)).change_id


async def test_the_ledger_has_the_photos_that_changed_and_no_others(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    one, two, three, _ = seeded.asset_ids
    await allow(client, [one])
    change = await client.get_change(await allow(client, [three, one, two]))
    assert change.reason == "a mirror"
    assert MessageToDict(change.before) == {"doubles": {two: False, three: False}}
    assert MessageToDict(change.after) == {"doubles": {two: True, three: True}}
    assert await allow(client, [one, two]) == ""
    taken = await client.get_change(await allow(client, seeded.asset_ids, allowed=False))
    assert MessageToDict(taken.after) == {"doubles": {one: False, two: False, three: False}}
    async with base.database.transaction() as tx:
        assert await read_doubles(tx, "default", seeded.asset_ids) == set()


async def test_unknown_photos_are_all_named_and_nothing_is_changed(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    with pytest.raises(NotFound) as refused:
        await allow(client, [seeded.asset_ids[0], "nowhere", seeded.asset_ids[1], "nor here"])
    assert [violation.field for violation in refused.value.violations] == ["asset_ids[1]", "asset_ids[3]"]
    assert refused.value.metadata == {"resource": "asset", "id": "nowhere"}
    async with base.database.transaction() as tx:
        assert await read_doubles(tx, "default", seeded.asset_ids) == set()
        assert await tx.scalar(select(func.count()).select_from(changes)) == 0


@pytest.mark.parametrize("asset_ids", [[], ["twice", "twice"], [str(number) for number in range(501)], ["a\n"]])
async def test_none_too_many_twice_or_no_id_is_refused(client: PersonsClient, asset_ids: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await allow(client, asset_ids)
    assert refused.value.violations[0].field.startswith("asset_ids")


async def test_many_who_say_the_same_make_one_change_of_each_photo(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    asked = [seeded.asset_ids if number % 2 else seeded.asset_ids[::-1] for number in range(10)]
    made = await asyncio.gather(*(allow(client, asset_ids) for asset_ids in asked))
    assert sum(bool(change_id) for change_id in made) == 1
    async with base.database.transaction() as tx:
        assert await read_doubles(tx, "default", seeded.asset_ids) == set(seeded.asset_ids)


async def test_a_photo_of_another_library_is_not_found(client: PersonsClient, base: Foundation) -> None:
    elsewhere = await seed_faces(base, random_vectors(1), library_id="other")
    with pytest.raises(KithError) as refused:
        await allow(client, elsewhere.asset_ids)
    assert isinstance(refused.value, NotFound)


async def test_what_was_allowed_goes_with_the_photo(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    await allow(client, seeded.asset_ids[:2])
    async with base.database.transaction() as tx:
        await tx.execute(delete(assets).where(assets.c.asset_id == seeded.asset_ids[0]))
        left = [row.asset_id for row in await tx.rows(select(allowed_doubles.c.asset_id))]
    assert left == [seeded.asset_ids[1]]


async def test_an_undo_passes_over_photos_that_are_gone(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    gone, there = seeded.asset_ids[:2]
    await allow(client, [gone, there])
    forbidden = await allow(client, [gone, there], allowed=False)
    async with base.database.transaction() as tx:
        await tx.execute(delete(assets).where(assets.c.asset_id == gone))
    undone = await client.undo(forbidden)
    assert (undone.reverted_count, MessageToDict(undone.change.after)) == (1, {"doubles": {there: True}})
    assert [(item.id, item.reason) for item in undone.skipped] == [(gone, "RESOURCE_NOT_FOUND")]
    async with base.database.transaction() as tx:
        assert await read_doubles(tx, "default", seeded.asset_ids) == {there}


async def test_an_undo_sees_what_was_said_of_a_photo_while_it_waited(
    client: PersonsClient, seeded: SeededFaces, base: Foundation
) -> None:
    (photo,) = seeded.asset_ids[:1]
    allowed = await allow(client, [photo])
    async with base.database.transaction() as tx:
        await lock_photos(tx, "default", [photo])
        await write_doubles(tx, base.clock, "default", {photo: False}, "somebody")
        undoing = asyncio.create_task(client.undo(allowed))
        await eventually(lambda: somebody_waits(base))
    undone = await undoing
    assert (undone.reverted_count, [(item.id, item.reason) for item in undone.skipped]) == (
        0,
        [(photo, "CHANGED_SINCE")],
    )
    assert not undone.HasField("change")
