"""Collections, aliases and payload indices."""

from __future__ import annotations

import pytest
from grpc import StatusCode
from qdrant_client import AsyncQdrantClient, models

from tests.integration.embedded_qdrant.points import EAST, assert_refused, point, uuid_of

_COSINE_4 = models.VectorParams(size=4, distance=models.Distance.COSINE)


async def test_a_created_collection_exists_and_shows_its_settings(client: AsyncQdrantClient, names: str) -> None:
    name = f"{names}faces"
    assert not await client.collection_exists(name)
    await client.create_collection(
        name,
        _COSINE_4,
        hnsw_config=models.HnswConfigDiff(m=24, ef_construct=200),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=50_000),
    )
    assert await client.collection_exists(name)
    assert name in {each.name for each in (await client.get_collections()).collections}
    info = await client.get_collection(name)
    assert isinstance(info.config.params.vectors, models.VectorParams)
    assert (info.config.params.vectors.size, info.config.params.vectors.distance) == (
        4,
        models.Distance.COSINE,
    )
    assert (info.config.hnsw_config.m, info.config.hnsw_config.ef_construct) == (24, 200)
    assert info.config.optimizer_config.indexing_threshold == 50_000
    assert (info.status, info.points_count) == (models.CollectionStatus.GREEN, 0)


async def test_updated_settings_are_shown_and_others_stay(client: AsyncQdrantClient, names: str) -> None:
    name = f"{names}faces"
    await client.create_collection(name, _COSINE_4, hnsw_config=models.HnswConfigDiff(m=24))
    await client.update_collection(name, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=60_000))
    info = await client.get_collection(name)
    assert info.config.optimizer_config.indexing_threshold == 60_000
    assert info.config.hnsw_config.m == 24


async def test_a_name_that_is_taken_is_refused(client: AsyncQdrantClient, collection: str) -> None:
    await assert_refused(client.create_collection(collection, _COSINE_4), StatusCode.ALREADY_EXISTS)


async def test_a_collection_that_is_not_there_is_not_found(client: AsyncQdrantClient, names: str) -> None:
    for call in (
        client.count(f"{names}nowhere"),
        client.get_collection(f"{names}nowhere"),
        client.upsert(f"{names}nowhere", [point(1)]),
        client.query_points(f"{names}nowhere", query=EAST),
    ):
        await assert_refused(call, StatusCode.NOT_FOUND, f"{names}nowhere")


async def test_deleting_a_collection_says_whether_it_was_there(client: AsyncQdrantClient, collection: str) -> None:
    assert await client.delete_collection(collection)
    assert not await client.collection_exists(collection)
    assert not await client.delete_collection(collection)


async def test_a_name_used_again_starts_empty(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1)])
    await client.delete_collection(collection)
    await client.create_collection(collection, _COSINE_4)
    assert (await client.count(collection)).count == 0


async def test_a_collection_holds_vectors_by_name(client: AsyncQdrantClient, names: str) -> None:
    name = f"{names}named"
    body = models.VectorParams(size=2, distance=models.Distance.DOT)
    await client.create_collection(name, {"face": _COSINE_4, "body": body})
    await client.upsert(name, [point(1, {"face": EAST, "body": [1.0, 2.0]}), point(2, {"body": [3.0, 4.0]})])
    records = await client.retrieve(name, [uuid_of(1), uuid_of(2)], with_vectors=True)
    assert {record.id: record.vector for record in records} == {
        uuid_of(1): {"face": EAST, "body": [1.0, 2.0]},
        uuid_of(2): {"body": [3.0, 4.0]},
    }
    (only,) = await client.retrieve(name, [uuid_of(1)], with_vectors=["body"])
    assert only.vector == {"body": [1.0, 2.0]}
    by_body = (await client.query_points(name, query=[1.0, 1.0], using="body")).points
    assert [(hit.id, hit.score) for hit in by_body] == [(uuid_of(2), 7.0), (uuid_of(1), 3.0)]
    await client.delete_vectors(name, vectors=["face"], points=[uuid_of(1)])
    assert (await client.query_points(name, query=EAST, using="face")).points == []


async def test_an_alias_stands_for_its_collection(client: AsyncQdrantClient, collection: str, names: str) -> None:
    alias = f"{names}live"
    await client.upsert(collection, [point(1)])
    await client.update_collection_aliases([_create_alias(alias, collection)])
    assert (await client.count(alias)).count == 1
    assert await client.collection_exists(alias)
    listed = [(each.alias_name, each.collection_name) for each in (await client.get_aliases()).aliases]
    assert (alias, collection) in listed
    of_collection = (await client.get_collection_aliases(collection)).aliases
    assert [each.alias_name for each in of_collection] == [alias]


async def test_aliases_are_switched_renamed_and_deleted(client: AsyncQdrantClient, collection: str, names: str) -> None:
    alias, renamed, second = f"{names}live", f"{names}current", f"{names}second"
    await client.create_collection(second, _COSINE_4)
    await client.upsert(second, [point(1), point(2)])
    await client.update_collection_aliases([_create_alias(alias, collection)])
    await client.update_collection_aliases([_delete_alias(alias), _create_alias(alias, second)])
    assert (await client.count(alias)).count == 2
    rename = models.RenameAlias(old_alias_name=alias, new_alias_name=renamed)
    await client.update_collection_aliases([models.RenameAliasOperation(rename_alias=rename)])
    assert (await client.count(renamed)).count == 2
    await assert_refused(client.count(alias), StatusCode.NOT_FOUND)
    await client.update_collection_aliases([_delete_alias(renamed)])
    await assert_refused(client.count(renamed), StatusCode.NOT_FOUND)


async def test_an_alias_dies_with_its_collection(client: AsyncQdrantClient, collection: str, names: str) -> None:
    alias = f"{names}live"
    await client.update_collection_aliases([_create_alias(alias, collection)])
    await client.delete_collection(collection)
    assert alias not in {each.alias_name for each in (await client.get_aliases()).aliases}


async def test_an_alias_of_nothing_is_refused(client: AsyncQdrantClient, names: str) -> None:
    call = client.update_collection_aliases([_create_alias(f"{names}live", f"{names}nowhere")])
    await assert_refused(call, StatusCode.NOT_FOUND)


@pytest.mark.parametrize(
    "schema",
    [
        models.PayloadSchemaType.KEYWORD,
        models.PayloadSchemaType.INTEGER,
        models.PayloadSchemaType.FLOAT,
        models.PayloadSchemaType.BOOL,
        models.PayloadSchemaType.DATETIME,
        models.PayloadSchemaType.UUID,
    ],
)
async def test_an_index_by_type_is_shown(
    client: AsyncQdrantClient, collection: str, schema: models.PayloadSchemaType
) -> None:
    await client.create_payload_index(collection, "field", schema, wait=True)
    assert (await client.get_collection(collection)).payload_schema["field"].data_type == schema
    await client.delete_payload_index(collection, "field", wait=True)
    assert (await client.get_collection(collection)).payload_schema == {}


@pytest.mark.parametrize(
    "params",
    [
        models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
        models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True),
        models.FloatIndexParams(type=models.FloatIndexType.FLOAT, is_principal=True),
        models.DatetimeIndexParams(type=models.DatetimeIndexType.DATETIME, is_principal=True),
        models.UuidIndexParams(type=models.UuidIndexType.UUID, is_tenant=True),
    ],
    ids=lambda params: str(params.type.value),
)
async def test_an_index_keeps_its_parameters(
    client: AsyncQdrantClient, collection: str, params: models.KeywordIndexParams
) -> None:
    await client.create_payload_index(collection, "field", params, wait=True)
    shown = (await client.get_collection(collection)).payload_schema["field"]
    asked = params.model_dump(exclude_none=True)
    assert shown.params is not None
    assert shown.params.model_dump(include=set(asked)) == asked


async def test_an_index_counts_points_written_before_and_after_it(client: AsyncQdrantClient, collection: str) -> None:
    await client.upsert(collection, [point(1, state="ACTIVE"), point(2)], wait=True)
    await client.create_payload_index(collection, "state", models.PayloadSchemaType.KEYWORD, wait=True)
    await client.upsert(collection, [point(3, state="IGNORED")], wait=True)
    assert (await client.get_collection(collection)).payload_schema["state"].points == 2


def _create_alias(alias: str, collection: str) -> models.CreateAliasOperation:
    create = models.CreateAlias(alias_name=alias, collection_name=collection)
    return models.CreateAliasOperation(create_alias=create)


def _delete_alias(alias: str) -> models.DeleteAliasOperation:
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
