"""Writing points: upserts, conditional upserts, payloads, vectors, deletes and batches."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import StatusCode
from qdrant_client import AsyncQdrantClient, models

from tests.integration.embedded_qdrant.points import (
    EAST,
    NORTH,
    UP,
    assert_refused,
    below,
    matches,
    payloads,
    point,
    uuid_of,
)

_RICH = {
    "text": "Zoë",
    "whole": -(2**53),
    "large": 2**63 - 1,
    "real": 0.25,
    "round": 2.0,
    "yes": True,
    "nothing": None,
    "list": [1, [2.5, "three"], {"four": [False]}],
    "object": {"nested": {"deep": []}, "empty": {}},
}


async def test_a_point_comes_back_as_it_was_written(client: AsyncQdrantClient, collection: str) -> None:
    result = await client.upsert(collection, [point(1, UP, **_RICH)], wait=True)
    assert result.status == models.UpdateStatus.COMPLETED
    (record,) = await client.retrieve(collection, [uuid_of(1)], with_vectors=True)
    assert (record.id, record.vector, record.payload) == (uuid_of(1), UP, _RICH)
    assert record.payload is not None
    assert isinstance(record.payload["yes"], bool)


async def test_ids_are_numbers_and_uuids(client: AsyncQdrantClient, collection: str) -> None:
    numbered = models.PointStruct(id=2**64 - 1, vector=EAST, payload={})
    plain = models.PointStruct(id=uuid_of(7).replace("-", ""), vector=EAST, payload={})
    await client.upsert(collection, [numbered, plain], wait=True)
    assert set(await payloads(client, collection)) == {2**64 - 1, uuid_of(7)}


async def test_retrieving_leaves_out_what_is_missing(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1), point(2)], wait=True)
    records = await client.retrieve(collection, [uuid_of(2), uuid_of(9), uuid_of(1)])
    assert {record.id for record in records} == {uuid_of(1), uuid_of(2)}


async def test_a_second_upsert_replaces_the_point(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1, EAST, a=1, b=2)], wait=True)
    await client.upsert(collection, [point(1, NORTH, b=3)], wait=True)
    (record,) = await client.retrieve(collection, [uuid_of(1)], with_vectors=True)
    assert (record.vector, record.payload) == (NORTH, {"b": 3})


async def test_payload_selection(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1, a=1, b={"c": 2, "d": 3})], wait=True)

    async def with_payload(selector: Any) -> Any:
        return (await client.retrieve(collection, [uuid_of(1)], with_payload=selector))[0].payload

    assert not await with_payload(False)
    assert await with_payload(["b.c"]) == {"b": {"c": 2}}
    assert await with_payload(models.PayloadSelectorExclude(exclude=["a", "b.d"])) == {"b": {"c": 2}}


async def test_an_older_row_version_never_overwrites_a_newer_one(client: AsyncQdrantClient, collection: str) -> None:
    async def relay(version: int) -> None:
        newer = below("row_version", version)
        await client.upsert(collection, [point(1, row_version=version)], update_filter=newer, wait=True)

    async def stored() -> int:
        return int((await payloads(client, collection))[uuid_of(1)]["row_version"])

    await relay(5)
    assert await stored() == 5, "an absent point is inserted"
    await relay(4)
    assert await stored() == 5, "an older row is left out"
    await relay(5)
    await relay(6)
    assert await stored() == 6, "a newer row replaces"


async def test_a_condition_is_decided_for_each_point(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1, EAST, v=1), point(2, EAST, v=9), point(3, EAST)], wait=True)
    await client.upsert(
        collection, [point(n, NORTH, v=5) for n in (1, 2, 3, 4)], update_filter=below("v", 5), wait=True
    )
    records, _ = await client.scroll(collection, limit=10, with_vectors=True)
    assert {(r.id, (r.payload or {}).get("v"), r.vector == NORTH) for r in records} == {
        (uuid_of(1), 5, True),
        (uuid_of(2), 9, False),
        (uuid_of(3), None, False),  # `v < 5` does not match a point without v
        (uuid_of(4), 5, True),
    }


async def test_concurrent_conditional_upserts_end_with_the_newest(client: AsyncQdrantClient, collection: str) -> None:
    versions = [(7 * n) % 31 for n in range(1, 31)]
    await asyncio.gather(
        *(client.upsert(collection, [point(1, v=each)], update_filter=below("v", each), wait=True) for each in versions)
    )
    assert await payloads(client, collection) == {uuid_of(1): {"v": max(versions)}}


async def test_insert_only_and_update_only(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1, v=1)], wait=True)
    both = [point(1, v=2), point(2, v=2)]
    await client.upsert(collection, both, update_mode=models.UpdateMode.INSERT_ONLY, wait=True)
    assert await payloads(client, collection) == {uuid_of(1): {"v": 1}, uuid_of(2): {"v": 2}}
    others = [point(2, v=3), point(3, v=3)]
    await client.upsert(collection, others, update_mode=models.UpdateMode.UPDATE_ONLY, wait=True)
    assert await payloads(client, collection) == {uuid_of(1): {"v": 1}, uuid_of(2): {"v": 3}}


async def test_set_payload_keeps_other_fields(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(n, n=n) for n in range(4)], wait=True)
    await client.set_payload(collection, {"person": "anna"}, points=[uuid_of(0), uuid_of(1)], wait=True)
    await client.set_payload(collection, {"cluster": "c"}, points=below("n", 1), wait=True)
    await client.set_payload(collection, {"deep": 1}, key="a.b", points=[uuid_of(3)], wait=True)
    assert await payloads(client, collection) == {
        uuid_of(0): {"n": 0, "person": "anna", "cluster": "c"},
        uuid_of(1): {"n": 1, "person": "anna"},
        uuid_of(2): {"n": 2},
        uuid_of(3): {"n": 3, "a": {"b": {"deep": 1}}},
    }


async def test_overwrite_delete_and_clear_payload(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(n, n=n, a={"b": 1, "c": 2}) for n in range(6)], wait=True)
    await client.overwrite_payload(collection, {"x": 1}, points=[uuid_of(0)], wait=True)
    await client.overwrite_payload(
        collection, {"n": 1, "x": 2}, points=models.Filter(must=[matches("n", 1)]), wait=True
    )
    await client.delete_payload(collection, ["a.b"], points=[uuid_of(2)], wait=True)
    await client.delete_payload(collection, ["a"], points=models.Filter(must=[matches("n", 3)]), wait=True)
    await client.clear_payload(collection, [uuid_of(4)], wait=True)
    await client.clear_payload(collection, models.Filter(must=[matches("n", 5)]), wait=True)
    assert await payloads(client, collection) == {
        uuid_of(0): {"x": 1},
        uuid_of(1): {"n": 1, "x": 2},
        uuid_of(2): {"n": 2, "a": {"c": 2}},
        uuid_of(3): {"n": 3},
        uuid_of(4): {},
        uuid_of(5): {},
    }


async def test_payload_of_a_missing_point_is_not_found(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1, a=1)], wait=True)
    both: list[Any] = [uuid_of(1), uuid_of(9)]
    for call in (
        client.set_payload(collection, {"b": 2}, points=both, wait=True),
        client.overwrite_payload(collection, {"b": 2}, points=both, wait=True),
        client.delete_payload(collection, ["a"], points=both, wait=True),
        client.clear_payload(collection, both, wait=True),
    ):
        await assert_refused(call, StatusCode.NOT_FOUND, uuid_of(9))


async def test_update_vectors_keeps_the_payload(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1, EAST, v=1), point(2, EAST, v=9)], wait=True)
    moved = [models.PointVectors(id=uuid_of(n), vector=NORTH) for n in (1, 2)]
    await client.update_vectors(collection, moved, update_filter=below("v", 5), wait=True)
    records, _ = await client.scroll(collection, with_vectors=True)
    assert [(r.payload, r.vector) for r in records] == [({"v": 1}, NORTH), ({"v": 9}, EAST)]
    missing = [models.PointVectors(id=uuid_of(3), vector=NORTH)]
    await assert_refused(client.update_vectors(collection, missing, wait=True), StatusCode.NOT_FOUND)


async def test_delete_by_id_and_by_filter(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(n, n=n) for n in range(6)], wait=True)
    await client.delete(collection, [uuid_of(5), uuid_of(99)], wait=True)
    await client.delete(collection, below("n", 3), wait=True)
    assert set(await payloads(client, collection)) == {uuid_of(3), uuid_of(4)}


async def test_a_batch_is_applied_in_order(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1, v=9), point(2)], wait=True)
    id_1: list[Any] = [uuid_of(1)]
    id_3: list[Any] = [uuid_of(3)]
    results = await client.batch_update_points(
        collection,
        [
            models.UpsertOperation(
                upsert=models.PointsList(points=[point(1, v=5), point(3, v=5)], update_filter=below("v", 5))
            ),
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"a": 1, "b": 2}, points=id_3)),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["b"], points=id_3)),
            models.UpdateVectorsOperation(
                update_vectors=models.UpdateVectors(points=[models.PointVectors(id=uuid_of(3), vector=UP)])
            ),
            models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload={"c": 3}, points=id_1)),
            models.DeleteOperation(delete=models.PointIdsList(points=[uuid_of(2)])),
        ],
        wait=True,
    )
    assert [each.status for each in results] == [models.UpdateStatus.COMPLETED] * 6
    assert await payloads(client, collection) == {uuid_of(1): {"c": 3}, uuid_of(3): {"v": 5, "a": 1}}
    (moved,) = await client.retrieve(collection, id_3, with_vectors=True)
    assert moved.vector == UP
    clear = models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=id_3))
    await client.batch_update_points(collection, [clear], wait=True)
    assert (await payloads(client, collection))[uuid_of(3)] == {}


async def test_a_large_upsert_is_one_message(client: AsyncQdrantClient, collection: str) -> None:
    text = "x" * 16_000
    await client.upsert(collection, [point(n, text=text) for n in range(1_000)], wait=True)
    assert (await client.count(collection)).count == 1_000
