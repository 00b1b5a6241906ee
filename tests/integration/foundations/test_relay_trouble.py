"""The relay when Qdrant is away, a collection is lost, or a row is bad: nothing is lost and nothing else waits."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from sqlalchemy import insert, update

from shared.db.outbox import PointKind, queue_points
from shared.db.tables_detection import face_embeddings
from shared.db.tables_shared import vector_outbox
from shared.faces.embeddings import encode_embedding
from shared.foundation import Foundation
from shared.vectors.client import open_qdrant
from tests.integration.conftest import eventually
from tests.integration.foundations.clock import StillClock
from tests.integration.foundations.vectors import (
    HookedQdrant,
    change_quality,
    compare,
    count_outbox,
    make_relay,
)
from tests.integration.library import MODEL, SeededFaces, random_vectors, seed_faces


async def test_while_qdrant_is_away_writers_go_on_and_the_queue_waits(
    base: Foundation, seeded: SeededFaces, clock: StillClock, unused_tcp_port: int
) -> None:
    settings = base.settings.qdrant.model_copy(update={"url": f"http://127.0.0.1:{unused_tcp_port}", "timeout_s": 1})
    nowhere = open_qdrant(settings)
    try:
        with pytest.raises(grpc.aio.AioRpcError):
            await make_relay(base, clock, nowhere).relay_batch()
    finally:
        await nowhere.close()
    await change_quality(base, seeded.face_ids[0], 0.25)
    assert await count_outbox(base) == 6
    clock.advance(base.settings.relay.retry_s + 1)
    assert await make_relay(base, clock).relay_batch() == 6
    assert (await compare(base)).consistent
    assert await count_outbox(base) == 0


async def test_the_loop_outlives_qdrant(base: Foundation, seeded: SeededFaces) -> None:
    away = True
    refused = asyncio.Event()

    async def refuse() -> None:
        if away:
            refused.set()
            # As an attempt to connect fails: without any words.
            raise TimeoutError

    running = asyncio.create_task(make_relay(base, base.clock, HookedQdrant(base.qdrant, refuse)).run())
    try:
        await refused.wait()
        assert await count_outbox(base) == 6
        away = False

        async def through() -> bool:
            assert not running.done()
            return await count_outbox(base) == 0

        await eventually(through)
        # And after that a change is relayed because it is announced or, at worst, at the next look.
        await change_quality(base, seeded.face_ids[1], 0.5)
        await eventually(through)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (await compare(base)).consistent


async def test_a_lost_collection_does_not_hold_up_the_others(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    async with base.database.transaction() as tx:
        # A model whose collections were never made, queued before everything else.
        await tx.execute(
            insert(face_embeddings),
            [
                {
                    "face_id": face_id,
                    "model_version": "lost",
                    "library_id": "default",
                    "embedding": encode_embedding(random_vectors(1)[0]),
                    "norm": 1.0,
                }
                for face_id in seeded.face_ids
            ],
        )
        await tx.execute(update(vector_outbox).values(queued_at=clock.now()))
        clock.advance(-100)
        await queue_points(tx, clock, PointKind.FACE, "default", [(face_id, "lost") for face_id in seeded.face_ids])
        clock.advance(100)
    relay = make_relay(base, clock, batch=8)
    with pytest.raises(grpc.aio.AioRpcError):
        # Six of the lost collection and two of the other: the two are written.
        await relay.relay_batch()
    assert await count_outbox(base) == 10
    # The six wait for their next try, so the rest has its turn.
    assert await relay.relay_batch() == 4
    assert (await compare(base)).consistent
    assert await relay.relay_batch() == 0
    clock.advance(base.settings.relay.retry_s + 1)
    await base.collections.create_missing("lost", 32)
    assert await relay.relay_batch() == 6
    assert await count_outbox(base) == 0


async def test_a_cancelled_relay_gives_its_points_back_at_once(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    writing = asyncio.Event()

    async def stand_still() -> None:
        writing.set()
        await asyncio.Event().wait()

    batch = asyncio.create_task(make_relay(base, clock, HookedQdrant(base.qdrant, stand_still)).relay_batch())
    await writing.wait()
    batch.cancel()
    await asyncio.gather(batch, return_exceptions=True)
    assert await make_relay(base, clock).relay_batch() == 6


async def test_a_row_that_cannot_be_read_does_not_hold_up_the_others(base: Foundation, clock: StillClock) -> None:
    seeded = await seed_faces(base, random_vectors(5))
    bad = seeded.face_ids[2]
    async with base.database.transaction() as tx:
        await tx.execute(update(face_embeddings).where(face_embeddings.c.face_id == bad).values(embedding=b"x"))
    await make_relay(base, clock).relay_batch()
    ids = [str(face_id) for face_id in seeded.face_ids]
    found = await base.qdrant.retrieve(base.collections.faces(MODEL), ids)
    assert {record.id for record in found} == set(ids) - {str(bad)}
    assert await count_outbox(base) == 1
