"""Outbox and relay against real PostgreSQL and Qdrant."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import delete, update

from shared.db.outbox import PointKind, claim_points, queue_faces, queue_points, release_claims, settle_claims
from shared.db.tables_detection import faces
from shared.db.tables_shared import vector_outbox
from shared.foundation import Foundation
from shared.vectors.relay import delete_points, write_points
from shared.vectors.truth import Point
from tests.integration.conftest import eventually
from tests.integration.counting import recording_statements
from tests.integration.foundations.clock import StillClock
from tests.integration.foundations.vectors import (
    HookedQdrant,
    change_quality,
    compare,
    count_outbox,
    make_relay,
    read_payload,
)
from tests.integration.library import MODEL, SeededFaces, random_vectors, seed_faces
from tests.integration.waiting import somebody_waits

LEASE = timedelta(seconds=30)


async def test_points_are_written_as_the_truth_says_and_leave_the_queue(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    assert await make_relay(base, clock).relay_batch() == 6
    assert await count_outbox(base) == 0
    assert (await compare(base)).consistent
    payload = await read_payload(base, seeded.face_ids[2])
    assert payload is not None
    assert payload.pop("row_version") > 0
    assert payload == {
        "library_id": "default",
        "asset_id": seeded.asset_ids[2],
        "person_id": None,
        "cluster_id": None,
        "assigned": False,
        "state": "ACTIVE",
        "quality": pytest.approx(0.8),
        "captured_at": "2020-01-03T00:00:00+00:00",
        "prototype": False,
    }
    held = await base.qdrant.retrieve(base.collections.faces(MODEL), [str(seeded.face_ids[2])], with_vectors=True)
    assert np.asarray(held[0].vector) @ random_vectors(6)[2] > 0.9999
    assert await make_relay(base, clock).relay_batch() == 0


async def test_many_changes_of_a_face_are_one_row_and_one_write(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    await make_relay(base, clock).relay_batch()
    for step in range(20):
        await change_quality(base, seeded.face_ids[0], step / 20)
    assert await count_outbox(base) == 1
    writes = 0

    async def count() -> None:
        nonlocal writes
        writes += 1

    assert await make_relay(base, clock, HookedQdrant(base.qdrant, count)).relay_batch() == 1
    assert writes == 1
    payload = await read_payload(base, seeded.face_ids[0])
    assert payload is not None
    assert payload["quality"] == pytest.approx(0.95)


async def test_what_is_gone_from_the_truth_is_deleted(base: Foundation, seeded: SeededFaces, clock: StillClock) -> None:
    await make_relay(base, clock).relay_batch()
    gone = seeded.face_ids[:2]
    async with base.database.transaction() as tx:
        await tx.execute(delete(faces).where(faces.c.face_id.in_(gone)))
        await queue_points(tx, clock, PointKind.FACE, "default", [(face_id, MODEL) for face_id in gone])
    await make_relay(base, clock).relay_batch()
    assert [await read_payload(base, face_id) for face_id in gone] == [None, None]
    assert (await compare(base)).consistent


async def test_a_rolled_back_change_queues_nothing(base: Foundation, seeded: SeededFaces, clock: StillClock) -> None:
    await make_relay(base, clock).relay_batch()

    async def change_and_fail() -> None:
        async with base.database.transaction() as tx:
            await queue_faces(tx, clock, "default", seeded.face_ids)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await change_and_fail()
    assert await count_outbox(base) == 0


async def test_a_change_during_the_write_is_relayed_again(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    changed = False

    async def change_once() -> None:
        nonlocal changed
        if not changed:
            changed = True
            await change_quality(base, seeded.face_ids[3], 0.125)

    relay = make_relay(base, clock, HookedQdrant(base.qdrant, change_once))
    assert await relay.relay_batch() == 6
    # The old state was written; the row stays for the new one.
    assert (await compare(base)).drifts[0].fields == ("quality",)
    assert await count_outbox(base) == 1
    assert await relay.relay_batch() == 1
    assert (await compare(base)).consistent
    assert await count_outbox(base) == 0


async def test_two_relays_share_the_queue(base: Foundation, clock: StillClock) -> None:
    await seed_faces(base, random_vectors(40))
    relays = [make_relay(base, clock, batch=5) for _ in range(2)]

    async def drain(index: int) -> int:
        done = 0
        while batch := await relays[index].relay_batch():
            done += batch
        return done

    shares = await asyncio.gather(drain(0), drain(1))
    assert sum(shares) == 40
    assert (await compare(base)).consistent


async def test_a_claim_is_passed_over_until_its_lease_ends(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    async with base.database.transaction() as tx:
        first = await claim_points(tx, clock, 4, LEASE)
    async with base.database.transaction() as tx:
        second = await claim_points(tx, clock, 10, LEASE)
    assert {claim.point_id for claim in first}.isdisjoint(claim.point_id for claim in second)
    assert len(first) + len(second) == 6
    clock.advance(LEASE.total_seconds() + 1)
    async with base.database.transaction() as tx:
        third = await claim_points(tx, clock, 10, LEASE)
    assert len(third) == 6
    assert third[0].version > second[0].version > first[0].version


async def test_a_relay_that_lost_its_claim_leaves_the_newer_write_and_asks_for_another_look(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    overtaken = False

    async def overtake() -> None:
        nonlocal overtaken
        if overtaken:
            return
        overtaken = True
        # The slow relay has read the truth already; now it changes, and another relay comes by after the lease.
        await change_quality(base, seeded.face_ids[0], 0.125)
        clock.advance(base.settings.relay.lease_s + 1)
        assert await make_relay(base, clock).relay_batch() == 6

    slow = make_relay(base, clock, HookedQdrant(base.qdrant, overtake))
    assert await slow.relay_batch() == 6
    payload = await read_payload(base, seeded.face_ids[0])
    assert payload is not None
    assert payload["quality"] == pytest.approx(0.125)
    # Its write could have undone a delete, so each of its points is looked at once more.
    assert await count_outbox(base) == 6
    assert await make_relay(base, clock).relay_batch() == 6
    assert await count_outbox(base) == 0


async def test_an_older_version_never_overwrites_or_deletes_a_newer_one(base: Foundation, seeded: SeededFaces) -> None:
    name, face_id = base.collections.faces(MODEL), seeded.face_ids[0]
    vector = random_vectors(1)[0]

    async def write(version: int, state: str) -> None:
        await write_points(base.qdrant, name, version, [Point(face_id, vector, {"state": state})])

    await write(5, "five")
    await write(4, "four")
    assert await read_payload(base, face_id) == {"state": "five", "row_version": 5}
    await delete_points(base.qdrant, name, 4, [face_id])
    assert await read_payload(base, face_id) is not None
    await write(6, "six")
    assert await read_payload(base, face_id) == {"state": "six", "row_version": 6}
    await delete_points(base.qdrant, name, 7, [face_id])
    assert await read_payload(base, face_id) is None


async def test_a_point_without_a_version_is_mended(base: Foundation, seeded: SeededFaces, clock: StillClock) -> None:
    await make_relay(base, clock).relay_batch()
    name = base.collections.faces(MODEL)
    await base.qdrant.overwrite_payload(
        name, {"library_id": "default", "state": "FOREIGN"}, [str(seeded.face_ids[0])], wait=True
    )
    assert not (await compare(base)).consistent
    async with base.database.transaction() as tx:
        await queue_faces(tx, clock, "default", seeded.face_ids[:1])
    await make_relay(base, clock).relay_batch()
    assert (await compare(base)).consistent


async def test_settling_and_writers_lock_in_one_order(base: Foundation, seeded: SeededFaces, clock: StillClock) -> None:
    first, last = min(seeded.face_ids), max(seeded.face_ids)
    async with base.database.transaction() as tx:
        claims = await claim_points(tx, clock, 10, LEASE)
        # Written again last to first, so that a scan of the table comes to them in that order.
        for face_id in sorted(seeded.face_ids, reverse=True):
            await tx.execute(
                update(vector_outbox).where(vector_outbox.c.point_id == face_id).values(queued_at=clock.now())
            )

    async def settle() -> None:
        async with base.database.transaction() as tx:
            await settle_claims(tx, clock, claims)

    async with base.database.transaction() as writer:
        await queue_points(writer, clock, PointKind.FACE, "default", [(first, MODEL)])
        settling = asyncio.create_task(settle())

        await eventually(lambda: somebody_waits(base))
        # If settling held the last already, one of the two would be killed here.
        await queue_points(writer, clock, PointKind.FACE, "default", [(last, MODEL)])
    await settling
    # These two changed while they were claimed, so they stay.
    assert await count_outbox(base) == 2


async def test_points_given_back_until_a_time_wait_for_it(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    async with base.database.transaction() as tx:
        claims = await claim_points(tx, clock, 10, LEASE)
    async with base.database.transaction() as tx:
        await release_claims(tx, clock, claims, until=clock.now() + timedelta(seconds=5))
    async with base.database.transaction() as tx:
        assert await claim_points(tx, clock, 10, LEASE) == []
    clock.advance(6)
    async with base.database.transaction() as tx:
        assert len(await claim_points(tx, clock, 10, LEASE)) == 6


async def test_a_batch_takes_as_many_statements_whatever_its_size(base: Foundation, clock: StillClock) -> None:
    await seed_faces(base, random_vectors(60))
    counts: list[int] = []
    writes = 0

    async def count_write() -> None:
        nonlocal writes
        writes += 1

    client = HookedQdrant(base.qdrant, count_write)
    for size in (2, 50):
        with recording_statements(base.database) as sent:
            assert await make_relay(base, clock, client, batch=size).relay_batch() == size
        counts.append(len(sent))
    assert counts[0] == counts[1] <= 8, sent
    assert writes == 2


async def test_a_release_asks_for_another_look_at_what_another_relay_has_taken(
    base: Foundation, seeded: SeededFaces, clock: StillClock
) -> None:
    async with base.database.transaction() as tx:
        slow = await claim_points(tx, clock, 10, LEASE)
    clock.advance(LEASE.total_seconds() + 1)
    assert await make_relay(base, clock).relay_batch() == 6
    assert await count_outbox(base) == 0
    # Qdrant never answered the slow one, and may still take its write: so all six are looked at once more.
    async with base.database.transaction() as tx:
        await release_claims(tx, clock, slow)
    assert await count_outbox(base) == 6
