"""Centroids follow the faces: what computes them, and when, against real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import insert, select, update

from services.clustering import computing
from services.clustering.computing import CentroidComputer, measure_waiting
from services.clustering.domain import averaging
from services.clustering.domain.averaging import compute_stale, store_computed
from services.clustering.domain.model import ActiveModel, ClusteringDeps, Computation
from shared.db.engine import Database
from shared.db.tables_clustering import centroids_to_compute
from shared.db.tables_detection import face_embeddings
from shared.db.tables_shared import vector_outbox
from shared.foundation import Foundation
from tests.integration.clustering.following import INTERVAL_S, LATER_S, People, find_model, marks, stored
from tests.integration.clustering.kit import crowd
from tests.integration.conftest import eventually
from tests.integration.foundations.clock import StillClock
from tests.integration.library import SeededFaces, seed_faces


async def test_who_has_waited_is_computed_and_waits_no_more(
    base: Foundation, people: People, seeded: SeededFaces, computer: CentroidComputer, clock: StillClock
) -> None:
    anna = await people.create("Anna", seeded.face_ids[:6])
    due_at = await computer.compute_due()
    assert due_at is not None
    assert abs((due_at - clock.now()).total_seconds() - INTERVAL_S) < INTERVAL_S
    assert await stored(base, anna) == []
    clock.advance(LATER_S)
    assert await computer.compute_due() is None
    (centroid,) = await stored(base, anna)
    assert (centroid.face_count, centroid.version, centroid.stale) == (6, 1, False)
    async with base.database.transaction() as tx:
        point = await tx.scalar(select(vector_outbox.c.point_id).where(vector_outbox.c.kind == "CENTROID"))
    assert point == centroid.centroid_id
    # Queued, but right: nothing is written.
    async with base.database.transaction() as tx:
        await tx.execute(
            insert(centroids_to_compute).values(person_id=anna, library_id="default", since=base.clock.now())
        )
    clock.advance(LATER_S)
    assert await computer.compute_due() is None
    assert [(each.centroid_id, each.version) for each in await stored(base, anna)] == [(centroid.centroid_id, 1)]
    assert await marks(base) == {}


async def test_who_has_no_face_or_is_put_away_or_merged_has_no_centroid(
    base: Foundation, people: People, seeded: SeededFaces, computer: CentroidComputer, clock: StillClock
) -> None:
    anna, bert = await people.create("Anna", seeded.face_ids[:5]), await people.create("Bert", seeded.face_ids[5:6])
    cleo, dora = await people.create("Cleo", seeded.face_ids[6:9]), await people.create("Dora", seeded.face_ids[9:])
    clock.advance(LATER_S)
    await computer.compute_due()
    assert len(await stored(base, anna, bert, cleo, dora)) == 4
    await people.unassign(seeded.face_ids[5])
    await people.merge(anna, cleo)
    await people.delete(dora)
    clock.advance(LATER_S)
    await computer.compute_due()
    (centroid,) = await stored(base, anna, bert, cleo, dora)
    assert (centroid.person_id, centroid.face_count) == (anna, 8)
    await people.undelete(dora)
    clock.advance(LATER_S)
    assert await computer.compute_due() is None
    assert {each.person_id for each in await stored(base, anna, dora)} == {anna, dora}


async def test_one_who_changes_while_being_computed_stays_and_is_computed_again(
    base: Foundation,
    people: People,
    seeded: SeededFaces,
    computer: CentroidComputer,
    clock: StillClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anna = await people.create("Anna", seeded.face_ids[:5])
    clock.advance(LATER_S)

    async def change_meanwhile(database: Database, model: ActiveModel, person_ids: Sequence[UUID]) -> Computation:
        computation = await compute_stale(database, model, person_ids)
        await people.assign(anna, [seeded.face_ids[5]])
        return computation

    monkeypatch.setattr(computing, "compute_stale", change_meanwhile)
    due_at = await computer.compute_due()
    monkeypatch.undo()
    (centroid,) = await stored(base, anna)
    assert (centroid.face_count, centroid.stale) == (5, True)
    # She waits anew, from when she was taken.
    assert due_at is not None
    assert timedelta(seconds=INTERVAL_S) <= due_at - clock.now() < timedelta(seconds=LATER_S)
    clock.advance(LATER_S)
    assert await computer.compute_due() is None
    (centroid,) = await stored(base, anna)
    assert (centroid.face_count, centroid.stale, centroid.version) == (6, False, 2)


async def test_a_worker_that_dies_loses_nothing(
    base: Foundation,
    people: People,
    seeded: SeededFaces,
    computer: CentroidComputer,
    clock: StillClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anna = await people.create("Anna", seeded.face_ids[:5])
    clock.advance(LATER_S)
    begun = asyncio.Event()

    async def never_end(*_: object) -> Computation:
        begun.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    monkeypatch.setattr(computing, "compute_stale", never_end)
    dying = asyncio.create_task(computer.compute_due())
    await begun.wait()
    dying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dying
    monkeypatch.undo()
    # Another worker leaves her alone while the lease lasts, and takes her then.
    due_at = await computer.compute_due()
    assert due_at == clock.now() + computing.LEASE
    assert await stored(base, anna) == []
    clock.advance(computing.LEASE.total_seconds())
    assert await computer.compute_due() is None
    assert len(await stored(base, anna)) == 1


async def test_many_workers_compute_each_person_once(
    base: Foundation,
    people: People,
    deps: ClusteringDeps,
    clock: StillClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeded = await seed_faces(base, crowd(*[2] * 24), with_collections=False)
    everybody = [
        await people.create(f"Person {index}", seeded.face_ids[2 * index : 2 * index + 2]) for index in range(24)
    ]
    # They were made one after the other.
    clock.advance(60)
    monkeypatch.setattr(computing, "PEOPLE_TOGETHER", 3)
    taken: list[UUID] = []

    async def note(database: Database, model: ActiveModel, person_ids: Sequence[UUID]) -> Computation:
        taken.extend(person_ids)
        return await compute_stale(database, model, person_ids)

    monkeypatch.setattr(computing, "compute_stale", note)
    workers = [CentroidComputer(base.database, deps) for _ in range(3)]
    await asyncio.gather(*(worker.compute_due() for worker in workers))
    assert sorted(taken) == sorted(everybody)
    assert {each.version for each in await stored(base, *everybody)} == {1}
    assert await marks(base) == {}


async def test_one_who_cannot_be_computed_holds_up_nobody(
    base: Foundation, people: People, seeded: SeededFaces, computer: CentroidComputer, clock: StillClock
) -> None:
    good, bad = await people.create("Good", seeded.face_ids[:3]), await people.create("Bad", seeded.face_ids[6:9])
    async with base.database.transaction() as tx:
        await tx.execute(
            update(face_embeddings)
            .where(face_embeddings.c.face_id == seeded.face_ids[6])
            .values(embedding=b"\x00" * 128)
        )
    clock.advance(LATER_S)
    assert await computer.compute_due() == clock.now() + computing.RETRY
    assert [each.person_id for each in await stored(base, good, bad)] == [good]
    assert set(await marks(base)) == {bad}


async def test_people_in_one_batch_get_their_own_faces(
    base: Foundation, people: People, deps: ClusteringDeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = crowd(5, 4, 3)
    seeded = await seed_faces(base, vectors, with_collections=False)
    monkeypatch.setattr(averaging, "FACES_AT_ONCE", 9)
    everybody = [
        await people.create(name, seeded.face_ids[first:last])
        for name, first, last in (("Anna", 0, 5), ("Bert", 5, 9), ("Cleo", 9, 12))
    ]
    model = await find_model(base)
    computation = await compute_stale(base.database, model, everybody)
    async with base.database.transaction() as tx:
        assert await store_computed(tx, deps, "default", model, computation) == 3
    found = {each.person_id: each for each in await stored(base, *everybody)}
    for person_id, rows in zip(everybody, (slice(0, 5), slice(5, 9), slice(9, 12)), strict=True):
        assert found[person_id].face_count == len(vectors[rows])
        assert (vectors[rows] @ found[person_id].vector).min() > 0.9


async def test_it_runs_by_itself_outlives_postgresql_and_shows_who_waits(
    base: Foundation, people: People, deps: ClusteringDeps, seeded: SeededFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = deps.settings.model_copy(update={"centroid_interval_s": 0.0, "centroid_poll_s": 0.05})
    now = ClusteringDeps(base.clock, deps.ids, settings, deps.quality, deps.suggestions)
    anna = await people.create("Anna", seeded.face_ids[:3])

    async def shown(value: float) -> bool:
        return base.metrics.registry.get_sample_value("kith_centroids_to_compute") == value

    asked = 0

    async def refuse(*_: object) -> list[object]:
        nonlocal asked
        asked += 1
        raise ConnectionRefusedError("connection refused")

    async def asked_twice() -> bool:
        return asked >= 2

    async def computed() -> bool:
        return bool(await stored(base, anna)) and await marks(base) == {}

    monkeypatch.setattr(computing, "MEASURE_S", 0.05)
    monkeypatch.setattr(computing, "claim_people", refuse)
    tasks = [
        asyncio.create_task(CentroidComputer(base.database, now).run()),
        asyncio.create_task(measure_waiting(base.database, base.clock, base.metrics)),
    ]
    await eventually(asked_twice)
    await eventually(lambda: shown(1.0))
    monkeypatch.undo()
    await eventually(computed)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_writers_and_workers_never_wait_for_each_other(
    base: Foundation, people: People, deps: ClusteringDeps
) -> None:
    """Two writers who move faces between the same people, while workers compute them: nobody is aborted as a deadlock."""
    vectors = crowd(20, 20)
    seeded = await seed_faces(base, vectors, with_collections=False)
    anna, bert = await people.create("Anna", seeded.face_ids[:20]), await people.create("Bert", seeded.face_ids[20:])
    settings = deps.settings.model_copy(update={"centroid_interval_s": 0.0})
    now = ClusteringDeps(base.clock, deps.ids, settings, deps.quality, deps.suggestions)
    workers = [asyncio.create_task(CentroidComputer(base.database, now).run()) for _ in range(2)]

    async def move(face_ids: Sequence[UUID], turns: Sequence[UUID]) -> None:
        for person_id in turns:
            for face_id in face_ids:
                await people.assign(person_id, [face_id])

    await asyncio.gather(
        move(seeded.face_ids[:4], [bert, anna, bert]), move(seeded.face_ids[20:24], [anna, bert, anna])
    )

    async def all_right() -> bool:
        found = await stored(base, anna, bert)
        return len({each.person_id for each in found if not each.stale}) == 2 and await marks(base) == {}

    await eventually(all_right, 60)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert [each.face_count for each in await stored(base, anna, bert) if each.kind == "GLOBAL"] == [20, 20]
