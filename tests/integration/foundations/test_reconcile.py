"""The comparison of Qdrant with the truth, the collections' guard, and searches among faces."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update

from shared.config import Environment
from shared.db.outbox import PointKind, queue_faces, raise_versions
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_shared import vector_versions
from shared.errors import DeadlineTooShort, PreconditionFailed, Reason
from shared.faces.embeddings import encode_embedding
from shared.foundation import Foundation
from shared.vectors.collections import CENTROID_INDEXES, FACE_INDEXES, Collections
from shared.vectors.faces import FaceFilter, FaceHit, FaceIndex, merge_hits
from shared.vectors.reconcile import Comparison, Depth, Drift, DriftKind, IndexPart
from tests.integration.conftest import eventually
from tests.integration.foundations.clock import StillClock
from tests.integration.foundations.vectors import compare, make_relay
from tests.integration.library import MODEL, SeededFaces, random_vectors, seed_faces
from tests.integration.waiting import somebody_waits


@pytest.fixture
async def relayed(base: Foundation, clock: StillClock) -> SeededFaces:
    seeded = await seed_faces(base, random_vectors(6))
    await make_relay(base, clock).relay_batch()
    return seeded


async def test_equal_stores_have_no_drift(base: Foundation, relayed: SeededFaces) -> None:
    report = await compare(base)
    assert report.consistent
    assert (report.postgres_count, report.qdrant_count, report.compared, report.drifts) == (6, 6, 6, [])
    assert (await compare(base, PointKind.CENTROID)).consistent


async def test_every_kind_of_drift_is_named(base: Foundation, relayed: SeededFaces) -> None:
    name = base.collections.faces(MODEL)
    missing, stranger, moved, turned, dated, _ = relayed.face_ids
    await base.qdrant.delete(name, [str(missing)], wait=True)
    async with base.database.transaction() as tx:
        await tx.execute(delete(faces).where(faces.c.face_id == stranger))
        await tx.execute(update(faces).where(faces.c.face_id == moved).values(state="IGNORED", quality=0.1))
        turned_embedding = encode_embedding(random_vectors(1, seed=9)[0])
        await tx.execute(
            update(face_embeddings).where(face_embeddings.c.face_id == turned).values(embedding=turned_embedding)
        )
        await tx.execute(update(assets).where(assets.c.asset_id == relayed.asset_ids[4]).values(captured_at=None))
    report = await compare(base)
    assert set(report.drifts) == {
        Drift(missing, DriftKind.MISSING),
        Drift(stranger, DriftKind.STRANGER),
        Drift(moved, DriftKind.STALE, ("state", "quality")),
        Drift(turned, DriftKind.STALE, ("vector",)),
        Drift(dated, DriftKind.STALE, ("captured_at",)),
    }
    assert (report.missing, report.strangers, report.stale) == (1, 1, 3)
    # The counts alone are equal, one missing and one too many.
    assert report.postgres_count == report.qdrant_count == 5
    assert not report.consistent


async def test_a_sample_is_drawn_from_everywhere(base: Foundation, relayed: SeededFaces) -> None:
    await base.qdrant.delete(base.collections.faces(MODEL), [str(max(relayed.face_ids))], wait=True)
    samples = [await compare(base, max_rows=2, seed=seed) for seed in range(40)]
    assert {sample.compared for sample in samples} == {2}
    # The first rows alone would miss it for ever, the last find it each time.
    assert 0 < sum(sample.missing for sample in samples) < 40
    again = await compare(base, max_rows=2, seed=7)
    assert again.drifts == samples[7].drifts
    assert (await compare(base, max_rows=100)).compared == 6
    counted = await compare(base, max_rows=0)
    assert (counted.compared, counted.postgres_count, counted.qdrant_count) == (0, 6, 5)
    assert not counted.consistent


async def test_a_lost_collection_misses_every_row(base: Foundation, relayed: SeededFaces) -> None:
    await base.collections.drop(MODEL)
    report = await compare(base)
    assert (report.qdrant_count, report.missing) == (0, 6)


async def test_libraries_are_compared_apart(base: Foundation, relayed: SeededFaces, clock: StillClock) -> None:
    await seed_faces(base, random_vectors(3, seed=4), library_id="other")
    await make_relay(base, clock).relay_batch()
    assert (await compare(base)).postgres_count == 6
    other = await compare(base, library_id="other")
    assert other.consistent
    assert other.qdrant_count == 3


async def test_a_point_that_says_it_is_of_another_library_is_stale(base: Foundation, relayed: SeededFaces) -> None:
    moved = relayed.face_ids[3]
    await seed_faces(base, random_vectors(1, seed=4), library_id="other")
    await base.qdrant.set_payload(base.collections.faces(MODEL), {"library_id": "other"}, [str(moved)], wait=True)
    assert (await compare(base)).drifts == [Drift(moved, DriftKind.STALE, ("library_id",))]
    assert Drift(moved, DriftKind.STALE, ("library_id",)) in (await compare(base, library_id="other")).drifts


async def test_a_comparison_stops_when_the_time_is_up(base: Foundation, relayed: SeededFaces) -> None:
    part = IndexPart(PointKind.FACE, "default", MODEL)
    async with base.database.snapshot() as tx:
        for rows in (3, None):
            with pytest.raises(DeadlineTooShort, match=r"0 of 6 rows .* call Reconcile"):
                await Comparison(base.qdrant, base.collections).compare(tx, part, Depth(rows, 0, lambda: 0.1))
        counts = await Comparison(base.qdrant, base.collections).compare(tx, part, Depth(0, 0, lambda: 0.1))
    assert counts.consistent


async def test_versions_leap_over_what_a_lost_database_has_written(
    base: Foundation, relayed: SeededFaces, clock: StillClock
) -> None:
    name, face_id = base.collections.faces(MODEL), relayed.face_ids[0]
    await base.qdrant.set_payload(name, {"row_version": 5_000, "state": "IGNORED"}, [str(face_id)], wait=True)
    await _queue_all(base, relayed, clock)
    # Passes for newer than anything the relay writes.
    assert (await compare(base)).stale == 1
    assert (
        await Comparison(base.qdrant, base.collections).read_newest_version(IndexPart(PointKind.FACE, "default", MODEL))
        == 5_000
    )
    for _ in range(2):
        async with base.database.transaction() as tx:
            await raise_versions(tx, 5_000)
            reached = await tx.scalar(select(vector_versions.next_value()))
        assert 5_000 < reached < 1_000_000
    await _queue_all(base, relayed, clock)
    assert (await compare(base)).consistent


async def test_two_leaps_at_once_never_go_back(base: Foundation) -> None:
    async def leap() -> None:
        async with base.database.transaction() as tx:
            await raise_versions(tx, 5_000)

    async with base.database.transaction() as tx:
        await raise_versions(tx, 10)
        # Neither looks before the other has leapt.
        leaping = asyncio.create_task(leap())
        await eventually(lambda: somebody_waits(base, kind="advisory"))
        await tx.execute(select(func.setval(vector_versions.name, 9_000_000)))
    await leaping
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(vector_versions.next_value())) == 9_000_001


def _guarded(base: Foundation, environment: Environment, **values: object) -> Collections:
    return Collections(base.qdrant, base.settings.qdrant.model_copy(update=values), environment)


async def test_a_test_touches_no_collection_of_another_prefix(base: Foundation) -> None:
    foreign = _guarded(base, Environment.TEST, prefix="kith")
    for refused in (foreign.create_missing(MODEL, 32), foreign.drop(MODEL)):
        with pytest.raises(PreconditionFailed, match="kith_faces_test_model"):
            await refused
    assert not await base.qdrant.collection_exists("kith_faces_test_model")


async def test_nothing_is_created_or_deleted_without_leave(base: Foundation) -> None:
    timid = _guarded(base, Environment.PRODUCTION, allow_destructive=False)
    with pytest.raises(PreconditionFailed, match="KITH_QDRANT_ALLOW_DESTRUCTIVE"):
        await timid.create_missing(MODEL, 32)
    await base.collections.create_missing(MODEL, 32)
    with pytest.raises(PreconditionFailed, match="KITH_QDRANT_ALLOW_DESTRUCTIVE"):
        await timid.drop(MODEL)
    # What is there may be used.
    assert await timid.create_missing(MODEL, 32) == []
    await timid.check(MODEL, 32)


async def test_collections_are_made_once_with_every_index(base: Foundation) -> None:
    collections = base.collections
    names = [collections.faces(MODEL), collections.centroids(MODEL)]
    assert await collections.create_missing(MODEL, 32) == names
    assert await collections.create_missing(MODEL, 32) == []
    for name, indexes in zip(names, (FACE_INDEXES, CENTROID_INDEXES), strict=True):
        assert set((await base.qdrant.get_collection(name)).payload_schema) == set(indexes)


async def test_an_index_that_a_crash_left_out_is_made_up_for(base: Foundation) -> None:
    await base.collections.create_missing(MODEL, 32)
    name = base.collections.faces(MODEL)
    await base.qdrant.delete_payload_index(name, "assigned", wait=True)
    await base.collections.create_missing(MODEL, 32)
    assert "assigned" in (await base.qdrant.get_collection(name)).payload_schema


async def test_another_dimension_is_refused(base: Foundation) -> None:
    await base.collections.create_missing(MODEL, 32)
    for refused in (base.collections.create_missing(MODEL, 64), base.collections.check(MODEL, 64)):
        with pytest.raises(PreconditionFailed) as mismatch:
            await refused
        assert mismatch.value.reason is Reason.MODEL_MISMATCH
        assert mismatch.value.metadata == {"expected": "32", "actual": "64"}
    with pytest.raises(PreconditionFailed, match="is missing"):
        await base.collections.check("unheard_of", 32)


async def test_faces_are_searched_in_one_library_and_by_filter(
    base: Foundation, relayed: SeededFaces, clock: StillClock
) -> None:
    await seed_faces(base, random_vectors(6), library_id="other")
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == relayed.face_ids[1]).values(state="IGNORED"))
    await _queue_all(base, relayed, clock)
    index = FaceIndex(base.qdrant, base.collections)
    queries = random_vectors(6)[:3]
    found = await index.search(MODEL, queries, FaceFilter("default", unassigned=True), limit=2, min_cosine=0.99)
    assert [[hit.face_id for hit in hits] for hits in found] == [[relayed.face_ids[0]], [], [relayed.face_ids[2]]]
    assert found[0][0].asset_id == relayed.asset_ids[0]
    assert found[0][0].cosine == pytest.approx(1, abs=1e-3)
    excluded = FaceFilter("default", excluded=(relayed.face_ids[0],))
    assert await index.search(MODEL, queries[:1], excluded, limit=2, min_cosine=0.99) == [[]]
    assert await index.search(MODEL, queries[:1], FaceFilter("default", min_quality=0.9), 2, 0.5) == [[]]
    assert await index.search(MODEL, queries[:0], FaceFilter("default"), 2, 0.5) == []


async def _queue_all(base: Foundation, relayed: SeededFaces, clock: StillClock) -> None:
    async with base.database.transaction() as tx:
        await queue_faces(tx, clock, "default", relayed.face_ids)
    await make_relay(base, clock).relay_batch()


def test_merged_hits_name_each_face_once_with_its_best_cosine() -> None:
    first, second = UUID(int=1), UUID(int=2)
    answers = [
        [FaceHit(first, "a", 0.5), FaceHit(second, "b", 0.4)],
        [FaceHit(second, "b", 0.9), FaceHit(first, "a", 0.3)],
    ]
    assert [(hit.face_id, hit.cosine) for hit in merge_hits(answers)] == [(second, 0.9), (first, 0.5)]
