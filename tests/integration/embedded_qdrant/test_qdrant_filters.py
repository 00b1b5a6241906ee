"""Filters: each kind of condition, with the payload indices of the faces collection and without any."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, models

from tests.integration.embedded_qdrant.points import below, found, matches, point, uuid_of
from tests.integration.embedded_qdrant.process import Target, random_prefix

_INDICES = {
    "person": models.PayloadSchemaType.KEYWORD,
    "n": models.PayloadSchemaType.INTEGER,
    "quality": models.PayloadSchemaType.FLOAT,
    "assigned": models.PayloadSchemaType.BOOL,
    "captured_at": models.PayloadSchemaType.DATETIME,
    "owner": models.PayloadSchemaType.UUID,
}


def _field(key: str, **test: Any) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, **test)])


def _day(number: int) -> datetime:
    return datetime(2020, 1, number, tzinfo=UTC)


def _points() -> list[models.PointStruct]:
    """Ten; `person` is a name for 0 to 4, null for 5 and 6, an empty list for 7, and missing for 8 and 9."""
    people: dict[int, dict[str, object]] = {n: {"person": f"p{n % 2}"} for n in range(5)}
    people |= {5: {"person": None}, 6: {"person": None}, 7: {"person": []}}
    return [
        point(
            n,
            n=n,
            quality=n / 10,
            assigned=n < 5,
            captured_at=_day(n + 1).isoformat(),
            owner=uuid_of(n // 5),
            tags=["a", "b", "c"][: n % 4],
            boxes=[{"w": n, "kind": "face"}, {"w": 100, "kind": "body"}],
            **people.get(n, {}),
        )
        for n in range(10)
    ]


@pytest.fixture(scope="module", params=[True, False], ids=["indexed", "unindexed"])
def faces(request: pytest.FixtureRequest, target: Target) -> Iterator[str]:
    """A collection of the points, which no test changes."""
    client, name = target.connect_blocking(), f"{random_prefix()}faces"
    client.create_collection(name, models.VectorParams(size=4, distance=models.Distance.COSINE))
    if request.param:
        for key, schema in _INDICES.items():
            client.create_payload_index(name, key, schema, wait=True)
    client.upsert(name, _points(), wait=True)
    yield name
    client.delete_collection(name)
    client.close()


_EMPTY = models.IsEmptyCondition(is_empty=models.PayloadField(key="person"))
_NULL = models.IsNullCondition(is_null=models.PayloadField(key="person"))
_LARGE_FACE = models.Nested(
    key="boxes",
    filter=models.Filter(must=[matches("kind", "face"), models.FieldCondition(key="w", range=models.Range(gte=8))]),
)
_P0_BUT_NOT_0 = models.Filter(must=[matches("person", "p0")], must_not=[matches("n", 0)])
_TWO_OF_THREE = models.MinShould(conditions=[matches("person", "p0"), matches("n", 0), matches("n", 2)], min_count=2)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (models.Filter(must=[matches("person", "p1")]), {1, 3}),
        (models.Filter(must=[matches("n", 3)]), {3}),
        (models.Filter(must=[matches("assigned", True)]), {0, 1, 2, 3, 4}),
        (models.Filter(must=[matches("assigned", False)]), {5, 6, 7, 8, 9}),
        (models.Filter(must=[matches("owner", uuid_of(1))]), {5, 6, 7, 8, 9}),
        (_field("person", match=models.MatchAny(any=["p0", "p9"])), {0, 2, 4}),
        (_field("n", match=models.MatchAny(any=[1, 2, 99])), {1, 2}),
        (_field("person", match=models.MatchExcept(**{"except": ["p0"]})), {1, 3}),
        (_field("n", match=models.MatchExcept(**{"except": [0, 1, 2, 3, 4, 5, 6]})), {7, 8, 9}),
        (below("n", 2), {0, 1}),
        (_field("quality", range=models.Range(gte=0.3, lte=0.5)), {3, 4, 5}),
        (_field("quality", range=models.Range(gt=0.3, lt=0.5)), {4}),
        (_field("captured_at", range=models.DatetimeRange(gte=_day(3), lt=_day(5))), {2, 3}),
        (_field("tags", values_count=models.ValuesCount(gte=2)), {2, 3, 6, 7}),
        (_field("person", is_empty=True), {5, 6, 7, 8, 9}),
        (_field("person", is_null=True), {5, 6}),
        (models.Filter(must=[_EMPTY]), {5, 6, 7, 8, 9}),
        (models.Filter(must=[_NULL]), {5, 6}),
        (models.Filter(must_not=[_EMPTY]), {0, 1, 2, 3, 4}),
        (models.Filter(must=[models.HasIdCondition(has_id=[uuid_of(1), uuid_of(2), uuid_of(77)])]), {1, 2}),
        (models.Filter(must_not=[models.HasIdCondition(has_id=[uuid_of(n) for n in range(8)])]), {8, 9}),
        (models.Filter(should=[matches("n", 1), matches("n", 8)]), {1, 8}),
        (models.Filter(must=[matches("assigned", True)], should=[matches("n", 1), matches("n", 8)]), {1}),
        (models.Filter(should=[matches("n", 9), _P0_BUT_NOT_0]), {2, 4, 9}),
        (models.Filter(min_should=_TWO_OF_THREE), {0, 2}),
        (models.Filter(must=[models.NestedCondition(nested=_LARGE_FACE)]), {8, 9}),
        (models.Filter(), set(range(10))),
    ],
)
async def test_filter_finds(client: AsyncQdrantClient, faces: str, chosen: models.Filter, expected: set[int]) -> None:
    assert await found(client, faces, chosen) == expected


async def test_filter_on_a_missing_field_finds_nothing(client: AsyncQdrantClient, faces: str) -> None:
    assert await found(client, faces, models.Filter(must=[matches("nowhere", "x")])) == set()


@pytest.mark.parametrize("indexed", [True, False])
async def test_filter_follows_changes_of_the_payload(client: AsyncQdrantClient, collection: str, indexed: bool) -> None:
    if indexed:
        await client.create_payload_index(collection, "assigned", models.PayloadSchemaType.BOOL, wait=True)
    await client.upsert(collection, _points(), wait=True)
    await client.set_payload(collection, {"assigned": True}, points=[uuid_of(5), uuid_of(6)], wait=True)
    await client.delete_payload(collection, ["assigned"], points=[uuid_of(7)], wait=True)
    assert await found(client, collection, models.Filter(must=[matches("assigned", False)])) == {8, 9}
    assert await found(client, collection, _field("assigned", is_empty=True)) == {7}
