"""The doctor as an operator calls it: what differs, and that it is mended, in one library and no other."""

from __future__ import annotations

import asyncio
from typing import cast
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, update

from kith.detection.v1 import doctor_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from services.detection.domain.model import DetectionDeps
from services.detection.prepare import prepare_known, prepare_models
from services.detection.servicers.doctor import MAX_CHECKS, Context, DoctorServicer
from services.detection.worker import start as start_worker
from shared.db.engine import Transaction
from shared.db.tables_detection import faces
from shared.errors import DeadlineTooShort, InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from shared.vectors.reconcile import CollectionReport, Comparison, Depth, IndexPart
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient, wait_relayed
from tests.integration.detection.mending import (
    COUNT,
    drop_points,
    lose_everything,
    read_versions,
    rebuild,
    reconcile,
    relay_all,
    result_of,
    search,
    wait_job,
)
from tests.integration.library import MODEL, SeededFaces, random_vectors, seed_faces

VECTORS = random_vectors(COUNT)


@pytest.fixture
async def seeded(detection: DetectionClient, base: Foundation) -> SeededFaces:
    """Faces in both stores, of which another library has some too."""
    found = await seed_faces(base, VECTORS)
    await seed_faces(base, random_vectors(5, seed=8), library_id="other")
    await relay_all(base)
    return found


@pytest.fixture
async def worker(running: Running, seeded: SeededFaces) -> None:
    await running.worker(start_worker)


async def check(client: DetectionClient, **fields: object) -> pb.CheckConsistencyResponse:
    async with translate_errors("detection"):
        return await client.doctor.CheckConsistency(pb.CheckConsistencyRequest(**fields))  # type: ignore[arg-type]


async def test_one_collection_is_checked_by_name(
    seeded: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    await drop_points(base, seeded.face_ids[:2])
    everything = await check(detection)
    assert [report.collection for report in everything.collections] == [
        base.collections.faces(MODEL),
        base.collections.centroids(MODEL),
    ]
    assert not everything.consistent
    centroids = await check(detection, collection=base.collections.centroids(MODEL), depth=pb.CHECK_DEPTH_FULL)
    assert [report.collection for report in centroids.collections] == [base.collections.centroids(MODEL)]
    assert centroids.consistent
    of_faces = await check(detection, collection=base.collections.faces(MODEL), depth=pb.CHECK_DEPTH_FULL)
    assert (of_faces.collections[0].missing, of_faces.collections[0].compared) == (2, COUNT)
    assert (await check(detection, library_id="other", depth=pb.CHECK_DEPTH_FULL)).consistent
    with pytest.raises(NotFound):
        await check(detection, collection="kith_faces_unheard_of")
    with pytest.raises(InvalidRequest):
        await check(detection, depth=pb.CHECK_DEPTH_SAMPLE, sample_size=-1)


async def test_a_check_that_has_no_time_for_everything_says_so(seeded: SeededFaces, detection: DetectionClient) -> None:
    request = pb.CheckConsistencyRequest(depth=pb.CHECK_DEPTH_FULL)
    with pytest.raises(DeadlineTooShort, match="call Reconcile"):
        async with translate_errors("detection"):
            await detection.doctor.CheckConsistency(request, timeout=0.4)


class CountingComparison(Comparison):
    """How many checks went on at once, at most; each takes so many turns that any number may begin."""

    going_on = most = 0

    async def compare(self, tx: Transaction, part: IndexPart, depth: Depth) -> CollectionReport:
        self.going_on += 1
        self.most = max(self.most, self.going_on)
        for _ in range(20):
            await tx.scalar(select(1))
        self.going_on -= 1
        return await super().compare(tx, part, depth)


async def test_checks_leave_connections_for_other_calls(seeded: SeededFaces, base: Foundation) -> None:
    counting = CountingComparison(base.qdrant, base.collections)
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    doctor = DoctorServicer(base.database, base.mutations, deps, base.collections, counting)
    context = cast(Context, None)
    checks = [doctor.CheckConsistency(pb.CheckConsistencyRequest(), context) for _ in range(6)]
    assert all(answer.consistent for answer in await asyncio.gather(*checks))
    assert counting.most == MAX_CHECKS


async def test_reconcile_mends_every_drift_and_writes_nothing_else(
    worker: None, seeded: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    missing, stranger, stale = seeded.face_ids[:3]
    untouched = seeded.face_ids[3:]
    await drop_points(base, [missing])
    async with base.database.transaction() as tx:
        await tx.execute(delete(faces).where(faces.c.face_id == stranger))
        await tx.execute(update(faces).where(faces.c.face_id == stale).values(state="IGNORED"))
    before = await read_versions(base, untouched)
    assert (await check(detection, depth=pb.CHECK_DEPTH_FULL)).collections[0].strangers == 1
    job = await wait_job(detection, await reconcile(detection))
    assert result_of(job) == {"compared": COUNT - 1, "upserted": 2, "deleted": 1}
    assert (job.kind, job.progress.unit) == ("detection.reconcile", "point")
    assert job.progress.done == job.progress.total == COUNT - 1
    assert (await check(detection, depth=pb.CHECK_DEPTH_FULL)).consistent
    assert await read_versions(base, untouched) == before
    again = await wait_job(detection, await reconcile(detection, base.collections.faces(MODEL)))
    assert result_of(again) == {"compared": COUNT - 1, "upserted": 0, "deleted": 0}


async def test_a_point_newer_than_its_database_is_mended(
    worker: None, seeded: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    """PostgreSQL was set back to a backup: what the relay writes would pass for old."""
    name = base.collections.faces(MODEL)
    newer = {"row_version": 9_000, "state": "IGNORED"}
    await base.qdrant.set_payload(name, newer, [str(seeded.face_ids[0])], wait=True)
    assert result_of(await wait_job(detection, await reconcile(detection, name)))["upserted"] == 1
    assert (await check(detection, depth=pb.CHECK_DEPTH_FULL)).consistent


async def test_a_lost_index_is_rebuilt_and_finds_what_it_found(
    worker: None, seeded: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    before = await search(base, VECTORS[:7])
    await lose_everything(base)
    assert await search(base, VECTORS[:1]) == [[]]
    assert (await check(detection, depth=pb.CHECK_DEPTH_FULL)).collections[0].missing == COUNT
    job = await wait_job(detection, await rebuild(detection))
    assert result_of(job) == {"upserted": COUNT}
    assert job.progress.done == job.progress.total == COUNT
    # At once: a job that succeeded has written what it counted.
    checked = await check(detection, depth=pb.CHECK_DEPTH_FULL)
    assert checked.consistent
    after = await search(base, VECTORS[:7])
    assert [[hit.face_id for hit in hits] for hits in after] == [[hit.face_id for hit in hits] for hits in before]
    # The other library shares the collection, and is still lost: nobody asked for it.
    assert (await check(detection, library_id="other")).collections[0].qdrant_count == 0
    await wait_job(detection, await rebuild(detection, library_id="other"))
    assert (await check(detection, library_id="other", depth=pb.CHECK_DEPTH_FULL)).consistent


async def test_a_rebuild_writes_no_point_of_another_library(
    worker: None, seeded: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    others = await seed_faces(base, random_vectors(4, seed=9), library_id="third")
    # By the worker's relay, which may have them in hand already.
    await wait_relayed(base)
    before = await read_versions(base, others.face_ids)
    ours = await read_versions(base, seeded.face_ids)
    assert result_of(await wait_job(detection, await rebuild(detection))) == {"upserted": COUNT}
    assert await read_versions(base, others.face_ids) == before
    assert min(await read_versions(base, seeded.face_ids)) > max(ours)


async def test_a_missing_collection_has_to_be_prepared_first(
    seeded: SeededFaces, detection: DetectionClient, base: Foundation
) -> None:
    # The library's, not the server's own: without that it would soon serve nobody.
    await base.collections.drop(MODEL)
    for call in (
        detection.doctor.Reconcile(pb.ReconcileRequest()),
        detection.doctor.RebuildVectors(pb.RebuildVectorsRequest()),
    ):
        with pytest.raises(PreconditionFailed, match=r"is missing; run `python -m") as refused:
            async with translate_errors("detection"):
                await call
        assert refused.value.reason is Reason.MODEL_MISMATCH
    assert (await check(detection)).collections[0].missing == COUNT
    names = [base.collections.faces(MODEL), base.collections.centroids(MODEL)]
    assert await prepare_known(base.settings) == names
    assert (await detection.doctor.RebuildVectors(pb.RebuildVectorsRequest())).job.id
    assert await prepare_models(base.settings, {MODEL: VECTORS.shape[1]}) == []


async def test_a_request_sent_again_starts_one_job(seeded: SeededFaces, detection: DetectionClient) -> None:
    request = pb.RebuildVectorsRequest(request_id=str(uuid4()))
    first = (await detection.doctor.RebuildVectors(request)).job
    assert (await detection.doctor.RebuildVectors(request)).job.id == first.id
    with pytest.raises(NotFound):
        async with translate_errors("detection"):
            await detection.doctor.RebuildVectors(pb.RebuildVectorsRequest(collection="unheard_of"))


async def test_a_library_without_vectors_is_well(detection: DetectionClient, running: Running) -> None:
    await running.worker(start_worker)
    assert (await check(detection, library_id="empty", depth=pb.CHECK_DEPTH_FULL)).consistent
    job = await wait_job(detection, await reconcile(detection, library_id="empty"))
    assert result_of(job) == {"compared": 0, "upserted": 0, "deleted": 0}
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
