"""Reading: queries, recommendations, pages, order, facets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grpc import StatusCode
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from tests.integration.embedded_qdrant.points import (
    EAST,
    NORTH,
    UP,
    assert_refused,
    below,
    matches,
    point,
    uuid_of,
)

_COUNT, _SIZE = 300, 16


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    """Unit vectors, (300, 16)."""
    drawn = np.random.default_rng(7).standard_normal((_COUNT, _SIZE)).astype(np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


@pytest.fixture
async def faces(client: AsyncQdrantClient, names: str, vectors: NDArray[np.float32]) -> str:
    """Point n has vector n, `n` and `person` p0 to p4."""
    name = f"{names}faces"
    await client.create_collection(name, models.VectorParams(size=_SIZE, distance=models.Distance.COSINE))
    await client.create_payload_index(name, "n", models.PayloadSchemaType.INTEGER, wait=True)
    await client.create_payload_index(name, "person", models.PayloadSchemaType.KEYWORD, wait=True)
    points = [point(n, vectors[n].tolist(), n=n, person=f"p{n % 5}") for n in range(_COUNT)]
    await client.upsert(name, points, wait=True)
    return name


async def test_query_is_exact(client: AsyncQdrantClient, faces: str, vectors: NDArray[np.float32]) -> None:
    for n in (0, 150, 299):
        scores = vectors @ vectors[n]
        best = np.argsort(-scores)[:10]
        hits = (await client.query_points(faces, query=vectors[n].tolist(), limit=10)).points
        assert [hit.id for hit in hits] == [uuid_of(int(each)) for each in best]
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-5)


async def test_query_gives_what_it_is_asked_for(
    client: AsyncQdrantClient, faces: str, vectors: NDArray[np.float32]
) -> None:
    query = vectors[3].tolist()
    (hit,) = (await client.query_points(faces, query=query, limit=1, with_vectors=True)).points
    assert hit.payload == {"n": 3, "person": "p3"}
    np.testing.assert_allclose(np.asarray(hit.vector), vectors[3], atol=1e-6)
    (bare,) = (await client.query_points(faces, query=query, limit=1, with_payload=False)).points
    assert not bare.payload
    assert bare.vector is None


async def test_query_with_filter_threshold_and_offset(
    client: AsyncQdrantClient, faces: str, vectors: NDArray[np.float32]
) -> None:
    scores = vectors @ vectors[0]
    order = [int(n) for n in np.argsort(-scores) if n % 5 == 2 and scores[n] >= 0.1]
    hits = await client.query_points(
        faces,
        query=vectors[0].tolist(),
        query_filter=models.Filter(must=[matches("person", "p2")]),
        score_threshold=0.1,
        offset=2,
        limit=100,
    )
    assert [hit.id for hit in hits.points] == [uuid_of(n) for n in order[2:]]


async def test_query_by_id_leaves_the_point_out(
    client: AsyncQdrantClient, faces: str, vectors: NDArray[np.float32]
) -> None:
    order = np.argsort(-(vectors @ vectors[9]))
    hits = (await client.query_points(faces, query=uuid_of(9), limit=3)).points
    assert [hit.id for hit in hits] == [uuid_of(int(n)) for n in order[1:4]]
    missing = uuid_of(4_000)
    await assert_refused(client.query_points(faces, query=missing), StatusCode.NOT_FOUND, missing)


async def test_query_batch_answers_each_as_if_alone(
    client: AsyncQdrantClient, faces: str, vectors: NDArray[np.float32]
) -> None:
    requests = [
        models.QueryRequest(
            query=vectors[n].tolist(),
            limit=4,
            filter=models.Filter(must=[matches("person", "p1")]) if n % 2 else None,
        )
        for n in range(6)
    ]
    batch = await client.query_batch_points(faces, requests)
    assert len(batch) == len(requests)
    for request, answer in zip(requests, batch, strict=True):
        alone = await client.query_points(faces, query=request.query, limit=4, query_filter=request.filter)
        assert [hit.id for hit in answer.points] == [hit.id for hit in alone.points]
    assert await client.query_batch_points(faces, []) == []


async def test_recommend_by_average(client: AsyncQdrantClient, faces: str, vectors: NDArray[np.float32]) -> None:
    average = vectors[[2, 3]].mean(axis=0)
    target = 2 * average - vectors[4]
    order = [int(n) for n in np.argsort(-(vectors @ target)) if n not in (2, 3, 4)]
    wanted = models.RecommendInput(positive=[uuid_of(2), uuid_of(3)], negative=[uuid_of(4)])
    hits = (await client.query_points(faces, query=models.RecommendQuery(recommend=wanted), limit=5)).points
    assert [hit.id for hit in hits] == [uuid_of(n) for n in order[:5]]


@pytest.mark.parametrize("strategy", [models.RecommendStrategy.BEST_SCORE, models.RecommendStrategy.SUM_SCORES])
async def test_recommend_by_scores_prefers_what_is_like_the_examples(
    client: AsyncQdrantClient, collection: str, strategy: models.RecommendStrategy
) -> None:
    await client.upsert(collection, [point(1, EAST), point(2, NORTH), point(3, UP)], wait=True)
    wanted = models.RecommendInput(positive=[[0.9, 0.1, 0.0, 0.0]], negative=[UP], strategy=strategy)
    hits = (await client.query_points(collection, query=models.RecommendQuery(recommend=wanted))).points
    assert [hit.id for hit in hits] == [uuid_of(1), uuid_of(2), uuid_of(3)]


async def test_scroll_pages_meet_every_point_once(client: AsyncQdrantClient, faces: str) -> None:
    seen: list[object] = []
    offset: Any = None
    while True:
        page, offset = await client.scroll(faces, limit=70, offset=offset, with_payload=False)
        seen += [record.id for record in page]
        if offset is None:
            break
    assert seen == [uuid_of(n) for n in range(_COUNT)]


async def test_scroll_pages_with_a_filter(client: AsyncQdrantClient, faces: str) -> None:
    first, offset = await client.scroll(faces, scroll_filter=below("n", 5), limit=3)
    rest, end = await client.scroll(faces, scroll_filter=below("n", 5), limit=3, offset=offset)
    assert [record.id for record in first + rest] == [uuid_of(n) for n in range(5)]
    assert end is None


async def test_scroll_in_the_order_of_a_field(client: AsyncQdrantClient, faces: str) -> None:
    descending = models.OrderBy(key="n", direction=models.Direction.DESC)
    last, _ = await client.scroll(faces, limit=3, order_by=descending)
    assert [(record.payload or {})["n"] for record in last] == [299, 298, 297]
    following, _ = await client.scroll(faces, limit=2, order_by=models.OrderBy(key="n", start_from=100))
    assert [(record.payload or {})["n"] for record in following] == [100, 101]
    hits = await client.query_points(faces, query=models.OrderByQuery(order_by=descending), limit=1)
    assert [hit.id for hit in hits.points] == [uuid_of(299)]


async def test_order_by_datetime(client: AsyncQdrantClient, collection: str) -> None:
    await client.create_payload_index(collection, "at", models.PayloadSchemaType.DATETIME, wait=True)
    times = ["2021-01-01T00:00:00Z", "2020-06-01T12:00:00+02:00", "2020-06-01T11:00:00Z"]
    await client.upsert(collection, [point(n, at=at) for n, at in enumerate(times)], wait=True)
    records, _ = await client.scroll(collection, order_by="at")
    assert [record.id for record in records] == [uuid_of(1), uuid_of(2), uuid_of(0)]


async def test_order_and_facet_need_an_index(client: AsyncQdrantClient, collection: str) -> None:
    bad = StatusCode.INVALID_ARGUMENT
    await client.upsert(collection, [point(1, n=1)], wait=True)
    await assert_refused(client.scroll(collection, order_by="n"), bad, "order_by", "n")
    await assert_refused(client.facet(collection, "n"), bad, "n")
    await client.create_payload_index(collection, "n", models.PayloadSchemaType.KEYWORD, wait=True)
    await assert_refused(client.scroll(collection, order_by="n"), bad, "order_by", "n")


async def test_facet_counts_values(client: AsyncQdrantClient, faces: str) -> None:
    hits = (await client.facet(faces, "person", facet_filter=below("n", 7), exact=True)).hits
    assert {hit.value: hit.count for hit in hits} == {"p0": 2, "p1": 2, "p2": 1, "p3": 1, "p4": 1}
    top = (await client.facet(faces, "person", facet_filter=below("n", 6), limit=1, exact=True)).hits
    assert [(hit.value, hit.count) for hit in top] == [("p0", 2)]


async def test_facet_has_no_zero_counts(client: AsyncQdrantClient, faces: str) -> None:
    await client.delete(faces, models.Filter(must=[matches("person", "p0")]), wait=True)
    await client.set_payload(faces, {"person": "p2"}, points=models.Filter(must=[matches("person", "p1")]), wait=True)
    hits = (await client.facet(faces, "person", limit=100, exact=True)).hits
    assert {hit.value: hit.count for hit in hits} == {"p2": 120, "p3": 60, "p4": 60}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (models.PayloadSchemaType.BOOL, True),
        (models.PayloadSchemaType.INTEGER, 7),
        (models.PayloadSchemaType.UUID, uuid_of(3)),
    ],
)
async def test_facet_values_keep_their_type(
    client: AsyncQdrantClient, collection: str, schema: models.PayloadSchemaType, value: bool | int | str
) -> None:
    await client.create_payload_index(collection, "field", schema, wait=True)
    await client.upsert(collection, [point(1, field=value), point(2, field=value)], wait=True)
    (hit,) = (await client.facet(collection, "field", exact=True)).hits
    assert (hit.value, type(hit.value), hit.count) == (value, type(value), 2)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (models.Distance.COSINE, [2, 1]),
        (models.Distance.DOT, [1, 2]),
        (models.Distance.EUCLID, [2, 1]),
        (models.Distance.MANHATTAN, [2, 1]),
    ],
)
async def test_each_distance_has_its_order(
    client: AsyncQdrantClient, names: str, distance: models.Distance, expected: list[int]
) -> None:
    name = f"{names}distance"
    await client.create_collection(name, models.VectorParams(size=2, distance=distance))
    await client.upsert(name, [point(1, [4.0, 4.0]), point(2, [2.0, 0.0])], wait=True)
    hits = (await client.query_points(name, query=[1.0, 0.0])).points
    assert [hit.id for hit in hits] == [uuid_of(n) for n in expected]
