"""Imports while the library is cut over to another model: no face is left without a vector of the one that is searched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, update

from kith.detection.v1 import faces_pb2 as pb
from services.detection.convert.importing import from_import
from services.detection.domain.importing import store_imported
from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.repository.models import lock_active_version
from services.detection.repository.unembedded import count_coverage
from shared.db.tables_detection import models
from shared.errors import PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import eventually
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.imports import DIMENSION, FOREIGN, imported, make_collections, message, send
from tests.integration.waiting import somebody_waits

COMING = "coming"


@pytest.fixture
async def client(detection: DetectionClient, base: Foundation, album: Album) -> DetectionClient:
    """A library with one imported face and a second model beside its first."""
    await make_collections(base)
    await detection.register({f"photo-{n}": album.uri(n) for n in range(3)})
    await send(detection, [message([imported("photo-0")])])
    row = {"library_id": "default", "pack": COMING, "dimension": DIMENSION, "created_at": base.clock.now()}
    async with base.database.transaction() as tx:
        await tx.execute(insert(models), {**row, "model_version": COMING, "state": "SHADOW"})
    return detection


async def cut_over(base: Foundation) -> None:
    async with base.database.transaction() as tx:
        for version, state in ((FOREIGN, "RETIRED"), (COMING, "ACTIVE")):
            await tx.execute(update(models).where(models.c.model_version == version).values(state=state))


async def test_a_cut_over_counts_the_faces_of_an_import_under_way(client: DetectionClient, base: Foundation) -> None:
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    faces, _ = from_import(message([imported("photo-1")]), 0, DIMENSION)

    async def count_missing() -> int:
        async with base.database.transaction() as tx:
            await lock_active_version(tx, "default")
            return (await count_coverage(tx, "default", COMING)).missing

    async with base.database.transaction() as tx:
        model = PackDescription(FOREIGN, "imported", DIMENSION, {}, {})
        await store_imported(tx, deps, base.settings.quality, "default", model, faces)
        counting = asyncio.create_task(count_missing())
        await eventually(lambda: somebody_waits(base))
    assert await counting == 2


async def test_an_import_ends_when_its_model_is_left(client: DetectionClient, base: Foundation) -> None:
    async def stream() -> AsyncIterator[pb.ImportFacesRequest]:
        yield message([imported("photo-1")])

        async def stored() -> bool:
            return len(await client.list_faces()) == 2

        await eventually(stored)
        await cut_over(base)
        yield message([imported("photo-2")])

    with pytest.raises(PreconditionFailed, match=f"is '{COMING}'") as refused:
        async with translate_errors("detection"):
            await client.faces.ImportFaces(stream())
    assert refused.value.reason is Reason.MODEL_MISMATCH
    assert refused.value.metadata == {"expected": COMING, "actual": FOREIGN}
    assert {face.asset_id for face in await client.list_faces()} == {"photo-0", "photo-1"}
    # Whoever begins anew knows that the model is not the one in use.
    assert (await send(client, [message([imported("photo-2")])])).created == 1
