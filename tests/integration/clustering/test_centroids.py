"""CentroidService: what is computed when, and what searching by it finds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import func, select, update

from kith.clustering.v1 import centroids_pb2
from services.clustering.repository.centroids import read_standings
from services.clustering.repository.unassigned import find_active_model
from shared.db.outbox import queue_faces
from shared.db.tables_clustering import centroids
from shared.db.tables_detection import assets, faces, models
from shared.db.tables_persons import assignments, persons
from shared.errors import InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.faces.centroid import compute_centroid, hash_members
from shared.faces.embeddings import decode_embedding, decode_embeddings, encode_embedding
from shared.faces.modes import ALGORITHM
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, crowd, read_payloads, relayed
from tests.integration.library import MODEL, seed_faces

GLOBAL = centroids_pb2.CENTROID_KIND_GLOBAL
CLUSTER = centroids_pb2.CENTROID_KIND_CLUSTER


async def name(kith: Kith, face_ids: Sequence[UUID], person: str = "Anna") -> str:
    person_id = await kith.create(person)
    await kith.assign(face_ids, person_id)
    return person_id


async def test_a_centroid_is_the_mean_and_its_point_is_in_the_index(kith: Kith, base: Foundation) -> None:
    vectors = crowd(6, 3)
    seeded = await seed_faces(base, vectors)
    anna = await name(kith, seeded.face_ids[:6])
    answer = await kith.compute(anna)
    assert answer.persons_computed == 1
    (centroid,) = answer.centroids
    assert (centroid.kind, centroid.face_count, centroid.trimmed_count) == (GLOBAL, 6, 0)
    assert (centroid.version, centroid.stale, centroid.model_version) == (1, False, MODEL)
    stored = decode_embeddings([encode_embedding(vector) for vector in vectors[:6]], vectors.shape[1])
    async with base.database.transaction() as tx:
        data = await tx.scalar(select(centroids.c.embedding))
    assert decode_embedding(data) @ compute_centroid(stored) > 0.99999
    await relayed(base)
    payloads = await read_payloads(base, base.collections.centroids(MODEL), [centroid.id])
    assert [payload["person_id"] for payload in payloads] == [anna]


async def test_two_ways_to_look_are_two_modes(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(9, 7))
    anna = await name(kith, seeded.face_ids)
    found = (await kith.compute(anna)).centroids
    assert [(c.kind, c.face_count) for c in found] == [(GLOBAL, 16), (CLUSTER, 9), (CLUSTER, 7)]
    assert {c.version for c in found} == {1}
    assert list(await kith.list_centroids(person_id=anna)) == list(found)


async def test_fresh_ones_stay_stale_ones_are_replaced(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(8, 4))
    anna = await name(kith, seeded.face_ids[:6])
    bert = await name(kith, seeded.face_ids[8:], "Bert")
    first = await kith.compute(anna, bert)
    assert first.persons_computed == 2
    again = await kith.compute(anna, bert)
    assert (again.persons_computed, again.centroids) == (0, first.centroids)
    await kith.assign([seeded.face_ids[6]], anna)
    assert {c.person_id: c.stale for c in await kith.list_centroids()} == {anna: True, bert: False}
    third = await kith.compute(anna, bert)
    assert third.persons_computed == 1
    versions = {c.person_id: (c.version, c.face_count, c.stale) for c in third.centroids}
    assert versions == {anna: (2, 7, False), bert: (1, 4, False)}
    # The same number of faces, but another one.
    await kith.unassign(seeded.face_ids[6])
    await kith.assign([seeded.face_ids[7]], anna)
    assert [c.stale for c in await kith.list_centroids(person_id=anna)] == [True]
    forced = await kith.compute(bert, force=True)
    assert [c.version for c in forced.centroids] == [2]
    await relayed(base)
    shown = await base.qdrant.count(base.collections.centroids(MODEL))
    assert shown.count == len(await kith.list_centroids())


async def test_a_person_without_faces_has_none(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(3))
    anna = await name(kith, seeded.face_ids)
    await kith.compute(anna)
    for face_id in seeded.face_ids:
        await kith.unassign(face_id)
    assert [c.stale for c in await kith.list_centroids()] == [True]
    answer = await kith.compute(anna)
    assert (answer.persons_computed, list(answer.centroids)) == (1, [])
    assert await kith.list_centroids() == []
    assert (await kith.compute(anna, force=True)).persons_computed == 0
    await relayed(base)
    assert (await base.qdrant.count(base.collections.centroids(MODEL))).count == 0


async def test_the_hash_in_sql_is_the_hash_of_the_kernel(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(5, 3))
    anna = await name(kith, seeded.face_ids[:5])
    await name(kith, seeded.face_ids[5:], "Bert")
    async with base.database.transaction() as tx:
        # An ignored face is none of the members.
        await tx.execute(update(faces).where(faces.c.face_id == seeded.face_ids[4]).values(state="IGNORED"))
        await tx.execute(update(assignments).where(assignments.c.face_id == seeded.face_ids[0]).values(version=12))
        model = await find_active_model(tx, "default")
        assert model is not None
        (standing,) = await read_standings(tx, model, [UUID(anna)])
        rows = await tx.rows(select(assignments.c.face_id, assignments.c.version))
    versions = {row.face_id: row.version for row in rows}
    assert versions[seeded.face_ids[0]] == 12
    members = [(str(face_id), versions[face_id]) for face_id in seeded.face_ids[:4]]
    assert standing.members_hash.hex() == hash_members([*members, (ALGORITHM, 0)])
    assert standing.face_count == 4


async def test_replays_and_deletion(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(4))
    anna = await name(kith, seeded.face_ids)
    fields = {"force": True, "request_id": str(uuid4())}
    first = await kith.compute(anna, **fields)
    assert await kith.compute(anna, **fields) == first
    request = centroids_pb2.DeleteCentroidsRequest(person_id=anna, request_id=str(uuid4()))
    assert (await kith.centroids.DeleteCentroids(request)).deleted_count == 1
    assert (await kith.centroids.DeleteCentroids(request)).deleted_count == 1
    assert await kith.list_centroids() == []
    with pytest.raises(NotFound):
        await kith.compute(str(uuid4()))
    with pytest.raises(InvalidRequest):
        await kith.compute()


async def test_search_finds_the_persons_unassigned_faces(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(10, 6))
    anna = await name(kith, seeded.face_ids[:4])
    await kith.exclude(seeded.face_ids[9], anna)
    await relayed(base)
    matches = await kith.search(anna)
    assert {m.face_id for m in matches} == {str(face_id) for face_id in seeded.face_ids[4:9]}
    assert [m.cosine for m in matches] == sorted((m.cosine for m in matches), reverse=True)
    assert all(m.cosine > 0.8 for m in matches)
    assert {m.centroid_id for m in matches} <= {c.id for c in await kith.list_centroids(person_id=anna)}
    assert len(await kith.search(anna, limit=2)) == 2
    # The floor is the caller's, else the pack's, else the usual one.
    assert len(await kith.search(anna, min_cosine=-1.0)) == 11
    async with base.database.transaction() as tx:
        await tx.execute(update(models).values(thresholds={"suggest_floor": 0.99999}))
    assert await kith.search(anna) == []


async def test_search_leaves_out_who_is_excluded_and_photos_from_before_birth(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More exclusions than are named in the query: the first are left out of what it found.
    monkeypatch.setattr("services.clustering.domain.searching.EXCLUDED_IN_QUERY", 1)
    seeded = await seed_faces(base, crowd(12))
    anna = await name(kith, seeded.face_ids[:3])
    for face_id in seeded.face_ids[9:]:
        await kith.exclude(face_id, anna)
    async with base.database.transaction() as tx:
        for face_id, taken, precision in (
            (seeded.face_ids[3], "2018-12-31", "SECOND"),
            (seeded.face_ids[4], "2019-05-19", "SECOND"),
            (seeded.face_ids[5], "2019-05-20", "SECOND"),
            (seeded.face_ids[6], "2019-01-01", "YEAR"),
            (seeded.face_ids[7], None, None),
        ):
            asset_id = await tx.scalar(select(faces.c.asset_id).where(faces.c.face_id == face_id))
            moment = datetime.fromisoformat(taken).replace(tzinfo=UTC) if taken else None
            await tx.execute(
                update(assets)
                .where(assets.c.asset_id == asset_id)
                .values(captured_at=moment, captured_precision=precision)
            )
        await tx.execute(
            update(persons)
            .where(persons.c.person_id == UUID(anna))
            .values(birth_year=2019, birth_month=5, birth_day=20)
        )
        await queue_faces(tx, base.clock, "default", seeded.face_ids)
    await relayed(base)
    found = {match.face_id for match in await kith.search(anna)}
    # A year, or nothing, says nothing for certain.
    assert found == {str(face_id) for face_id in seeded.face_ids[5:9]}


async def test_who_is_deleted_is_not_searched_by(kith: Kith, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(5))
    anna = await name(kith, seeded.face_ids[:3])
    await kith.compute(anna)
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).values(deleted_at=base.clock.now()))
    assert [c.stale for c in await kith.list_centroids()] == [True]
    with pytest.raises(PreconditionFailed) as refused:
        await kith.search(anna)
    assert refused.value.reason is Reason.FACE_NOT_ASSIGNED
    assert await kith.list_centroids() == []


async def test_search_computes_stale_centroids_first(kith: Kith, base: Foundation) -> None:
    vectors = crowd(6, 6)
    seeded = await seed_faces(base, vectors)
    anna = await name(kith, seeded.face_ids[:3])
    await relayed(base)
    await kith.search(anna)
    # Anna turns out to be the other one too.
    await kith.assign(seeded.face_ids[6:9], anna)
    await relayed(base)
    found = {m.face_id for m in await kith.search(anna)}
    assert found == {str(face_id) for face_id in (*seeded.face_ids[3:6], *seeded.face_ids[9:])}
    (centroid,) = await kith.list_centroids()
    assert (centroid.version, centroid.stale) == (2, False)


async def test_near_duplicates_count_once_but_not_two_faces_of_one_photo(kith: Kith, base: Foundation) -> None:
    twins = np.repeat(crowd(1), 2, axis=0)
    person = await seed_faces(base, crowd(3))
    burst = [await seed_faces(base, twins, faces_per_photo=2) for _ in range(3)]
    async with base.database.transaction() as tx:
        await tx.execute(
            update(assets)
            .where(assets.c.asset_id == func.any([photos.asset_ids[0] for photos in burst]))
            .values(difference_hash=-3)
        )
    anna = await name(kith, person.face_ids)
    await relayed(base)
    matches = await kith.search(anna)
    assert len(matches) == 2
    assert len({m.asset_id for m in matches}) <= 2


async def test_search_without_faces(kith: Kith, base: Foundation) -> None:
    anna = await kith.create("Anna")
    with pytest.raises(PreconditionFailed) as before_any_model:
        await kith.search(anna)
    await seed_faces(base, crowd(2))
    with pytest.raises(PreconditionFailed) as without_faces:
        await kith.search(anna)
    assert before_any_model.value.reason is without_faces.value.reason is Reason.FACE_NOT_ASSIGNED
    with pytest.raises(NotFound):
        await kith.search(str(uuid4()))
    with pytest.raises(InvalidRequest):
        await kith.search(anna, min_cosine=1.5)
