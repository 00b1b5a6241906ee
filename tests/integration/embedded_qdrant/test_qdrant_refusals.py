"""What the embedded Qdrant refuses: bad vectors, large pages, and what only a server can do.

Against the embedded one only: a server accepts some of this, because it can do it or because it looks less
closely.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode
from qdrant_client import AsyncQdrantClient, models

from tests.integration.embedded_qdrant.points import (
    EAST,
    NORTH,
    assert_refused,
    matches,
    payloads,
    point,
    uuid_of,
)

_COSINE_4 = models.VectorParams(size=4, distance=models.Distance.COSINE)


@pytest.fixture
async def collection(embedded_client: AsyncQdrantClient, prefix: str) -> AsyncIterator[str]:
    """A collection with one point."""
    name = f"{prefix}points"
    await embedded_client.create_collection(name, _COSINE_4)
    await embedded_client.upsert(name, [point(1, a=1)])
    yield name
    await embedded_client.delete_collection(name)


@pytest.mark.parametrize(
    ("vector", "word"),
    [
        ([1.0, 2.0], "dimension"),
        ([math.nan, 0.0, 0.0, 1.0], "finite"),
        ([math.inf, 0.0, 0.0, 1.0], "finite"),
        ([0.0, 0.0, 0.0, 0.0], "zeros"),
        ({"unknown": EAST}, "unknown"),
    ],
)
async def test_a_vector_that_cannot_be_compared_writes_nothing(
    embedded_client: AsyncQdrantClient, collection: str, vector: Any, word: str
) -> None:
    bad = StatusCode.INVALID_ARGUMENT
    good_then_bad = [point(2, EAST), point(3, vector)]
    await assert_refused(embedded_client.upsert(collection, good_then_bad), bad, word)
    moves = [models.PointVectors(id=uuid_of(1), vector=each) for each in (NORTH, vector)]
    await assert_refused(embedded_client.update_vectors(collection, moves), bad, word)
    (record,) = (await embedded_client.scroll(collection, with_vectors=True))[0]
    assert (record.id, record.vector) == (uuid_of(1), EAST)
    using, query = ("unknown", EAST) if isinstance(vector, dict) else (None, vector)
    await assert_refused(embedded_client.query_points(collection, query=query, using=using), bad, word)


async def test_a_zero_vector_is_fine_where_it_can_be_compared(embedded_client: AsyncQdrantClient, prefix: str) -> None:
    name = f"{prefix}dot"
    await embedded_client.create_collection(name, models.VectorParams(size=2, distance=models.Distance.DOT))
    await embedded_client.upsert(name, [point(1, [0.0, 0.0])])
    assert (await embedded_client.count(name)).count == 1
    await embedded_client.delete_collection(name)


async def test_ids_payloads_and_paths_that_cannot_be_read_are_refused(
    embedded_client: AsyncQdrantClient, collection: str
) -> None:
    bad = StatusCode.INVALID_ARGUMENT
    named = models.PointStruct(id="anna", vector=EAST, payload={})
    await assert_refused(embedded_client.upsert(collection, [named]), bad, "UUID")
    await assert_refused(embedded_client.upsert(collection, [point(2, a=math.nan)]), bad, "finite")
    broken = models.Filter(must=[matches("a[", 1)])
    await assert_refused(embedded_client.count(collection, count_filter=broken), bad, "a[")
    await assert_refused(embedded_client.delete(collection, broken), bad, "a[")
    await assert_refused(embedded_client.delete_payload(collection, ["a["], points=[uuid_of(1)]), bad, "a[")
    await assert_refused(
        embedded_client.create_payload_index(collection, "a[", models.PayloadSchemaType.KEYWORD), bad, "a["
    )
    await assert_refused(embedded_client.retrieve(collection, [uuid_of(1)], with_vectors=["no"]), bad, "no")
    await assert_refused(embedded_client.scroll(collection, with_vectors=["no"]), bad, "no")
    empty = models.RecommendQuery(recommend=models.RecommendInput(positive=[]))
    await assert_refused(embedded_client.query_points(collection, query=empty), bad, "positive")
    assert await payloads(embedded_client, collection) == {uuid_of(1): {"a": 1}}


async def test_a_page_that_is_too_large_is_refused_and_not_cut_short(
    embedded_client: AsyncQdrantClient, collection: str
) -> None:
    bad, limit = StatusCode.INVALID_ARGUMENT, 10_000
    await assert_refused(embedded_client.scroll(collection, limit=limit + 1), bad, "10001", "10000")
    await assert_refused(embedded_client.query_points(collection, query=EAST, limit=limit + 1), bad, "10001")
    far = embedded_client.query_points(collection, query=EAST, limit=limit - 1, offset=2)
    await assert_refused(far, bad, "10001")
    await assert_refused(embedded_client.retrieve(collection, [uuid_of(1)] * (limit + 1)), bad, "10001")
    assert len((await embedded_client.scroll(collection, limit=limit))[0]) == 1


@pytest.mark.parametrize(
    ("query", "word"),
    [
        (models.DiscoverQuery(discover=models.DiscoverInput(target=EAST, context=[])), "discover"),
        (models.NearestQuery(nearest=EAST, mmr=models.Mmr(diversity=0.5)), "nearest_with_mmr"),
        (models.SparseVector(indices=[1], values=[1.0]), "sparse"),
        ([EAST, NORTH], "multi_dense"),
    ],
)
async def test_queries_only_a_server_can_answer_are_named(
    embedded_client: AsyncQdrantClient, collection: str, query: Any, word: str
) -> None:
    await assert_refused(embedded_client.query_points(collection, query=query), StatusCode.UNIMPLEMENTED, word)


async def test_requests_only_a_server_can_do_are_named(embedded_client: AsyncQdrantClient, collection: str) -> None:
    client = embedded_client
    here = models.GeoRadius(center=models.GeoPoint(lon=0, lat=0), radius=1)
    place = models.Filter(must=[models.FieldCondition(key="at", geo_radius=here)])
    text = models.Filter(must=[models.FieldCondition(key="a", match=models.MatchText(text="x"))])
    words = models.TextIndexParams(type=models.TextIndexType.TEXT, lowercase=True)
    for call, word in (
        (client.query_points(collection, prefetch=[models.Prefetch(query=EAST)], query=EAST), "prefetch"),
        (client.query_points_groups(collection, group_by="a", query=EAST), "QueryGroups"),
        (client.search_matrix_pairs(collection), "SearchMatrixPairs"),
        (client.count(collection, count_filter=place), "geo_radius"),
        (client.count(collection, count_filter=text), "text"),
        (client.upsert(collection, [point(2)], shard_key_selector="a"), "shard_key_selector"),
        (client.create_payload_index(collection, "a", models.PayloadSchemaType.GEO), "FieldTypeGeo"),
        (client.create_payload_index(collection, "a", words), "text_index_params"),
    ):
        await assert_refused(call, StatusCode.UNIMPLEMENTED, word)
    assert await payloads(client, collection) == {uuid_of(1): {"a": 1}}


async def test_collections_only_a_server_can_hold_are_named(embedded_client: AsyncQdrantClient, prefix: str) -> None:
    client, name = embedded_client, f"{prefix}never"
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    many = models.VectorParams(size=4, distance=models.Distance.COSINE, multivector_config=multi)
    small = models.VectorParams(size=4, distance=models.Distance.COSINE, datatype=models.Datatype.UINT8)
    sparse = {"words": models.SparseVectorParams()}
    for call, word in (
        (client.create_collection(name, many), "multivector_config"),
        (client.create_collection(name, small), "Uint8"),
        (client.create_collection(name, _COSINE_4, sparse_vectors_config=sparse), "sparse_vectors_config"),
    ):
        await assert_refused(call, StatusCode.UNIMPLEMENTED, word)
    nothing = models.VectorParams.model_construct(size=0, distance=models.Distance.COSINE)
    for call in (client.create_collection(name, nothing), client.create_collection(f"{prefix}/", _COSINE_4)):
        await assert_refused(call, StatusCode.INVALID_ARGUMENT)
    assert not await client.collection_exists(name)


async def test_a_batch_with_a_bad_operation_keeps_the_ones_before_it(
    embedded_client: AsyncQdrantClient, collection: str
) -> None:
    operations = [
        models.UpsertOperation(upsert=models.PointsList(points=[point(2, b=2)])),
        models.UpsertOperation(upsert=models.PointsList(points=[point(3, [1.0])])),
        models.UpsertOperation(upsert=models.PointsList(points=[point(4)])),
    ]
    await assert_refused(
        embedded_client.batch_update_points(collection, operations), StatusCode.INVALID_ARGUMENT, "dimension"
    )
    assert await payloads(embedded_client, collection) == {uuid_of(1): {"a": 1}, uuid_of(2): {"b": 2}}
