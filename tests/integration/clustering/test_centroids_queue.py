"""Who waits for their centroids to be computed, and who waits no more, against real PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select, text, update

from services.clustering import computing
from services.clustering.computing import CentroidComputer
from services.clustering.domain.averaging import compute_stale, store_computed
from services.clustering.domain.model import ClusteringDeps
from services.clustering.repository.centroid_queue import clear_people
from services.clustering.wiring import build_deps
from shared.db.tables_clustering import centroid_formulas, centroids_to_compute
from shared.db.tables_detection import faces, models
from shared.db.tables_persons import assignments, persons
from shared.foundation import Foundation
from tests.integration.clustering.following import LATER_S, People, find_model, forget_marks, marks, stored
from tests.integration.foundations.clock import StillClock
from tests.integration.library import MODEL, SeededFaces


async def test_whatever_moves_a_face_queues_everybody_concerned(
    base: Foundation, people: People, seeded: SeededFaces
) -> None:
    anna, bert = await people.create("Anna"), await people.create("Bert")
    assert await marks(base) == {}
    await people.assign(anna, seeded.face_ids[:4])
    assert set(await marks(base)) == {anna}
    await forget_marks(base)
    await people.assign(bert, [seeded.face_ids[0]])
    assert set(await marks(base)) == {anna, bert}
    await forget_marks(base)
    taken = await people.unassign(seeded.face_ids[1])
    assert set(await marks(base)) == {anna}
    await forget_marks(base)
    await people.undo(taken)
    assert set(await marks(base)) == {anna}
    await forget_marks(base)
    merged = await people.merge(anna, bert)
    assert set(await marks(base)) == {anna, bert}
    await forget_marks(base)
    await people.undo(merged)
    assert set(await marks(base)) == {anna, bert}


async def test_who_is_put_away_or_brought_back_is_queued_and_who_is_renamed_is_not(
    base: Foundation, people: People, seeded: SeededFaces
) -> None:
    anna, empty = await people.create("Anna", seeded.face_ids[:4]), await people.create("Empty")
    await forget_marks(base)
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).values(name="Another", status="ACTIVE"))
    assert await marks(base) == {}
    await people.delete(anna)
    assert set(await marks(base)) == {anna}
    await forget_marks(base)
    await people.undelete(anna)
    assert set(await marks(base)) == {anna}
    await forget_marks(base)
    await people.merge(anna, empty)
    assert empty in await marks(base)


async def test_statements_of_anybody_queue_and_a_person_who_is_removed_waits_no_more(
    base: Foundation, people: People, seeded: SeededFaces
) -> None:
    anna = await people.create("Anna", seeded.face_ids[:4])
    bert = await people.create("Bert", seeded.face_ids[4:6])
    first = await marks(base)
    async with base.database.transaction() as tx:
        await tx.execute(update(assignments).where(assignments.c.face_id == seeded.face_ids[0]).values(person_id=bert))
    second = await marks(base)
    assert second[anna] != first[anna]
    assert second[bert] != first[bert]
    await forget_marks(base)
    async with base.database.transaction() as tx:
        # The assignment goes by the cascade.
        await tx.execute(delete(faces).where(faces.c.face_id == seeded.face_ids[1]))
    assert set(await marks(base)) == {anna}
    async with base.database.transaction() as tx:
        await tx.execute(text("DELETE FROM prototypes"))
        await tx.execute(delete(assignments))
        await tx.execute(delete(persons))
    assert await marks(base) == {}


async def test_a_number_is_never_used_again(
    base: Foundation, people: People, seeded: SeededFaces, computer: CentroidComputer
) -> None:
    """Who was taken out and came back is another entry: a slow worker must not take it for the one it has seen."""
    anna = await people.create("Anna", seeded.face_ids[:3])
    model = await find_model(base)
    slow = await compute_stale(base.database, model, [anna])
    before = await marks(base)
    await forget_marks(base)
    await people.assign(anna, [seeded.face_ids[3]])
    async with base.database.transaction() as tx:
        assert await store_computed(tx, build_deps(base), "default", model, slow) == 1
        await clear_people(tx, before)
    assert set(await marks(base)) == {anna}


async def test_computing_by_call_takes_out_of_the_queue(
    base: Foundation, people: People, deps: ClusteringDeps, seeded: SeededFaces
) -> None:
    anna = await people.create("Anna", seeded.face_ids[:3])
    model = await find_model(base)
    for computed in (1, 0):
        async with base.database.transaction() as tx:
            await tx.execute(
                text("UPDATE centroids_to_compute SET changes = changes + 1000 WHERE person_id = :p"), {"p": anna}
            )
        computation = await compute_stale(base.database, model, [anna])
        async with base.database.transaction() as tx:
            assert await store_computed(tx, deps, "default", model, computation) == computed
        assert await marks(base) == {}
        async with base.database.transaction() as tx:
            await tx.execute(
                insert(centroids_to_compute).values(person_id=anna, library_id="default", since=base.clock.now())
            )


async def test_a_row_that_is_being_written_is_left_and_waited_for_by_nobody(
    base: Foundation, people: People, deps: ClusteringDeps, seeded: SeededFaces
) -> None:
    anna = await people.create("Anna", seeded.face_ids[:3])
    model = await find_model(base)
    async with base.database.transaction() as writer:
        await writer.execute(delete(assignments).where(assignments.c.face_id == seeded.face_ids[0]))
        computation = await compute_stale(base.database, model, [anna])
        async with asyncio.timeout(20), base.database.transaction() as tx:
            assert await store_computed(tx, deps, "default", model, computation) == 1
    (centroid,) = await stored(base, anna)
    assert (centroid.face_count, centroid.stale) == (3, True)
    assert set(await marks(base)) == {anna}


async def test_another_model_or_another_formula_makes_everybody_due(
    base: Foundation,
    people: People,
    seeded: SeededFaces,
    computer: CentroidComputer,
    clock: StillClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(computing, "QUEUED_TOGETHER", 1)
    anna, bert = await people.create("Anna", seeded.face_ids[:3]), await people.create("Bert", seeded.face_ids[6:8])
    await forget_marks(base)
    # The first version that has the queue.
    await computer.queue_outdated()
    assert set(await marks(base)) == {anna, bert}
    clock.advance(LATER_S)
    await computer.compute_due()
    await computer.queue_outdated()
    assert await marks(base) == {}
    await _cut_over(base, "next_model", retire=MODEL)
    await computer.queue_outdated()
    clock.advance(LATER_S)
    await computer.compute_due()
    assert {(each.person_id, each.model_version) for each in await stored(base, anna, bert)} == {
        (anna, "next_model"),
        (bert, "next_model"),
    }
    # The faces change under the new model, and it is rolled back: what there is of the old one is checked again.
    await people.unassign(seeded.face_ids[0])
    clock.advance(LATER_S)
    await computer.compute_due()
    await _cut_over(base, MODEL, retire="next_model")
    assert [(each.person_id, each.stale) for each in await stored(base, anna, bert)] == [(anna, True), (bert, False)]
    await computer.queue_outdated()
    clock.advance(LATER_S)
    await computer.compute_due()
    assert {(each.person_id, each.stale) for each in await stored(base, anna, bert)} == {(anna, False), (bert, False)}
    monkeypatch.setattr(computing, "ALGORITHM", "another")
    await computer.queue_outdated()
    assert set(await marks(base)) == {anna, bert}
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(centroid_formulas.c.algorithm)) == "another"


async def _cut_over(base: Foundation, model_version: str, *, retire: str) -> None:
    """Make another model the active one, with the same vectors."""
    async with base.database.transaction() as tx:
        await tx.execute(update(models).where(models.c.model_version == retire).values(state="RETIRED"))
        await tx.execute(
            text(
                "INSERT INTO models (library_id, model_version, pack, dimension, state, created_at) "
                "SELECT library_id, :new, pack, dimension, 'RETIRED', created_at FROM models "
                "WHERE model_version = :old ON CONFLICT DO NOTHING"
            ),
            {"new": model_version, "old": retire},
        )
        await tx.execute(update(models).where(models.c.model_version == model_version).values(state="ACTIVE"))
        await tx.execute(
            text(
                "INSERT INTO face_embeddings (face_id, model_version, library_id, embedding, norm) "
                "SELECT face_id, :new, library_id, embedding, norm FROM face_embeddings "
                "WHERE model_version = :old ON CONFLICT DO NOTHING"
            ),
            {"new": model_version, "old": retire},
        )


async def test_a_changed_formula_makes_what_is_stored_stale(
    base: Foundation, people: People, deps: ClusteringDeps, seeded: SeededFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = await people.create("Anna", seeded.face_ids[:3])
    model = await find_model(base)
    for version in (1, 2):
        computation = await compute_stale(base.database, model, [anna])
        async with base.database.transaction() as tx:
            assert await store_computed(tx, deps, "default", model, computation) == 1
        (centroid,) = await stored(base, anna)
        assert (centroid.version, centroid.stale) == (version, False)
        monkeypatch.setattr("services.clustering.repository.centroids.ALGORITHM", "trimmed-mean-next")
        assert [each.stale for each in await stored(base, anna)] == [version == 1]


async def test_who_is_due_and_held_by_somebody_is_asked_for_once_in_a_while(
    base: Foundation, people: People, seeded: SeededFaces, computer: CentroidComputer, clock: StillClock
) -> None:
    anna = await people.create("Anna", seeded.face_ids[:4])
    clock.advance(LATER_S)
    async with base.database.transaction() as tx:
        await tx.execute(select(centroids_to_compute).where(centroids_to_compute.c.person_id == anna).with_for_update())
        due_at = await computer.compute_due()
        assert due_at is not None
        assert due_at < clock.now()
        assert computer.choose_pause(due_at) == 0.05
    assert computer.choose_pause(clock.now() + timedelta(seconds=0.01)) == pytest.approx(0.01)
    assert computer.choose_pause(None) == 0.05
    assert await computer.compute_due() is None
