"""What the tests write and how they ask: shorthand for the client's models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, models

EAST, NORTH, UP, AFAR = (
    [1.0, 0.0, 0.0, 0.0],
    [0.0, 1.0, 0.0, 0.0],
    [0.0, 0.0, 1.0, 0.0],
    [0.0, 0.0, 0.0, 1.0],
)


def uuid_of(number: int) -> str:
    """A UUIDv7 that sorts by `number`."""
    return str(UUID(int=(0x0190 << 112) | (7 << 76) | (2 << 62) | number))


def point(number: int, vector: Any = EAST, **payload: Any) -> models.PointStruct:
    """A point with the id `uuid_of(number)`."""
    return models.PointStruct(id=uuid_of(number), vector=vector, payload=payload)


def matches(key: str, value: Any) -> models.FieldCondition:
    """`key` has exactly `value`."""
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def below(key: str, bound: float) -> models.Filter:
    """`key` is less than `bound`."""
    return models.Filter(must=[models.FieldCondition(key=key, range=models.Range(lt=bound))])


async def payloads(client: AsyncQdrantClient, collection: str) -> dict[Any, Any]:
    """Every point's payload by id."""
    records, following = await client.scroll(collection, limit=10_000)
    assert following is None
    return {record.id: record.payload for record in records}


async def found(client: AsyncQdrantClient, collection: str, chosen: models.Filter) -> set[int]:
    """The numbers of the points that pass the filter, the same by scroll and by count."""
    records, _ = await client.scroll(collection, scroll_filter=chosen, limit=1000, with_payload=False)
    assert (await client.count(collection, count_filter=chosen)).count == len(records)
    return {UUID(str(record.id)).int & 0xFFFF for record in records}


@asynccontextmanager
async def refused(code: grpc.StatusCode, *words: str) -> AsyncIterator[None]:
    """The block is answered with `code`, and a message that has all `words`."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert caught.value.code() is code, caught.value.details()
    for word in words:
        assert word in (caught.value.details() or "")


async def assert_refused(call: Awaitable[Any], code: grpc.StatusCode, *words: str) -> None:
    """`call` is answered with `code`, and a message that has all `words`."""
    async with refused(code, *words):
        await call
