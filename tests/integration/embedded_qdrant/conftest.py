"""Fixtures: a client for each Qdrant the suite runs against, and a collection of its own for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient, models

from tests.integration.embedded_qdrant.process import EmbeddedQdrant, Target, random_prefix, start

_SERVER_URL = os.environ.get("KITH_QDRANT_URL")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedQdrant]:
    """One embedded Qdrant for all tests that do not end it."""
    qdrant = start(tmp_path_factory.mktemp("qdrant"))
    yield qdrant
    assert qdrant.stop() == 0


@pytest.fixture(scope="session", params=["embedded", *(["server"] if _SERVER_URL else [])])
def target(request: pytest.FixtureRequest) -> Target:
    """The embedded Qdrant, and in a second run the server at `KITH_QDRANT_URL` where it is set."""
    if request.param == "server":
        return Target.of_url(_SERVER_URL or "", os.environ.get("KITH_QDRANT_API_KEY"))
    embedded: EmbeddedQdrant = request.getfixturevalue("embedded")
    return embedded.target()


@pytest.fixture
async def client(target: Target) -> AsyncIterator[AsyncQdrantClient]:
    """A client as the services make it."""
    client = target.connect()
    yield client
    await client.close()


@pytest.fixture
async def embedded_client(embedded: EmbeddedQdrant) -> AsyncIterator[AsyncQdrantClient]:
    """A client for the embedded Qdrant, where the suite asks for more than a server promises."""
    client = embedded.client()
    yield client
    await client.close()


@pytest.fixture
def prefix() -> str:
    """The start of every name of a test, so that tests on a shared server never meet."""
    return random_prefix()


@pytest.fixture
async def names(client: AsyncQdrantClient, prefix: str) -> AsyncIterator[str]:
    """`prefix`, with every collection whose name starts with it deleted afterwards."""
    yield prefix
    for collection in (await client.get_collections()).collections:
        if collection.name.startswith(prefix):
            await client.delete_collection(collection.name)


@pytest.fixture
async def collection(client: AsyncQdrantClient, names: str) -> str:
    """An empty collection of 4-d vectors under cosine."""
    name = f"{names}points"
    await client.create_collection(name, models.VectorParams(size=4, distance=models.Distance.COSINE))
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that is not there yet, for a process of the test's own."""
    return tmp_path / "data"
