"""LabelCluster: who it assigns, what it refuses, and what a retry does after a crash at each step."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Table, func, select

from kith.jobs.v1 import jobs_pb2
from services.clustering.adapters.people import RemotePeople
from services.clustering.domain.ports import FacesAssigned
from services.clustering.servicers import cluster as servicer
from services.persons.worker import start as start_persons_worker
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_persons import assignments, changes
from shared.db.tables_shared import jobs
from shared.errors import InvalidRequest, KithError, NotFound, Reason
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, read_payloads, relayed, seed_cluster
from tests.integration.conftest import Running
from tests.integration.library import random_vectors, seed_faces


async def seed(base: Foundation, count: int = 6) -> tuple[str, list[UUID]]:
    seeded = await seed_faces(base, random_vectors(count, 16))
    return await seed_cluster(base, seeded.face_ids), seeded.face_ids


async def count(base: Foundation, table: Table) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).select_from(table))
        return found


async def count_changes(base: Foundation, kind: str) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).where(changes.c.kind == kind))
        return found


async def test_a_new_person_gets_the_faces_and_the_cluster_ends(kith: Kith, base: Foundation) -> None:
    cluster_id, face_ids = await seed(base)
    answer = await kith.label(cluster_id, new_person_name="Anna")
    assert answer.faces_assigned == 6
    assert not answer.failures
    assert await kith.face_count(answer.person_id) == 6
    assert await kith.list_clusters() == []
    assert await count(base, clusters) == await count(base, cluster_members) == 0
    await relayed(base)
    payloads = await read_payloads(base, base.collections.faces("test_model"), [str(face_id) for face_id in face_ids])
    assert [(payload["person_id"], payload["cluster_id"]) for payload in payloads] == [(answer.person_id, None)] * 6
    with pytest.raises(NotFound):
        await kith.label(cluster_id, new_person_name="Anna")


async def test_an_existing_person_and_faces_that_are_somebody_else(kith: Kith, base: Foundation) -> None:
    cluster_id, face_ids = await seed(base)
    anna, bert = await kith.create("Anna"), await kith.create("Bert")
    await kith.exclude(face_ids[0], anna)
    await kith.assign([face_ids[1]], bert)
    etag = (await kith.list_clusters())[0].etag
    answer = await kith.label(cluster_id, person_id=anna, etag=etag, except_face_ids=[str(face_ids[2])])
    assert answer.person_id == anna
    assert answer.faces_assigned == 3
    assert [(failure.id, failure.reason) for failure in answer.failures] == [(str(face_ids[0]), "FACE_EXCLUDED")]
    assert (await kith.face_count(anna), await kith.face_count(bert)) == (3, 1)
    assert await kith.list_clusters() == []
    await relayed(base)
    # Those that stayed behind are in no cluster, in both stores.
    behind = [str(face_ids[0]), str(face_ids[2])]
    payloads = await read_payloads(base, base.collections.faces("test_model"), behind)
    assert [(payload["assigned"], payload["cluster_id"]) for payload in payloads] == [(False, None)] * 2


async def test_a_face_assigned_meanwhile_is_named(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_id, face_ids = await seed(base)
    anna, bert = await kith.create("Anna"), await kith.create("Bert")
    real = RemotePeople.assign_faces

    async def overtaken(self: RemotePeople, *arguments: object) -> FacesAssigned:
        await kith.assign([face_ids[3]], bert)
        return await real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RemotePeople, "assign_faces", overtaken)
    answer = await kith.label(cluster_id, person_id=anna)
    assert answer.faces_assigned == 5
    assert [(f.id, f.reason) for f in answer.failures] == [(str(face_ids[3]), "FACE_ALREADY_ASSIGNED")]
    assert await kith.list_clusters() == []


async def test_a_stale_etag_changes_nothing(kith: Kith, base: Foundation) -> None:
    cluster_id, face_ids = await seed(base)
    shown = (await kith.list_clusters())[0].etag
    await kith.assign([face_ids[0]], await kith.create("Bert"))
    with pytest.raises(KithError) as refused:
        await kith.label(cluster_id, new_person_name="Anna", etag=shown)
    assert (refused.value.code, refused.value.reason) == ("ABORTED", Reason.CLUSTER_CHANGED)
    now = (await kith.list_clusters())[0].etag
    assert refused.value.metadata == {"cluster_id": cluster_id, "current_etag": now}
    assert await kith.person_count() == 1
    assert (await kith.label(cluster_id, new_person_name="Anna", etag=now)).faces_assigned == 5
    with pytest.raises(KithError) as gone:
        await kith.label(cluster_id, new_person_name="Anna", etag=now)
    assert gone.value.reason is Reason.CLUSTER_CHANGED


async def test_requests_that_cannot_be(kith: Kith, base: Foundation) -> None:
    cluster_id, face_ids = await seed(base, 3)
    stranger = (await seed_faces(base, random_vectors(1, 16, seed=1))).face_ids[0]
    for fields in (
        {},
        {"new_person_name": "  "},
        {"new_person_name": "Anna", "except_face_ids": [str(stranger)]},
        {"new_person_name": "Anna", "except_face_ids": [str(face_id) for face_id in face_ids]},
        {"new_person_name": "Anna", "except_face_ids": [str(face_ids[0])] * 2},
    ):
        with pytest.raises(InvalidRequest):
            await kith.label(cluster_id, **fields)
    with pytest.raises(NotFound):
        await kith.label(cluster_id, person_id=str(uuid4()))
    with pytest.raises(NotFound):
        await kith.label("clu_000000000000", new_person_name="Anna")
    assert await kith.person_count() == 0
    assert len(await kith.list_clusters()) == 1


async def test_a_replay_doubles_nothing(kith: Kith, base: Foundation) -> None:
    cluster_id, _ = await seed(base)
    fields = {"new_person_name": "Anna", "request_id": str(uuid4())}
    first = await kith.label(cluster_id, **fields)
    ledger = await count(base, changes)
    assert await kith.label(cluster_id, **fields) == first
    assert await count(base, changes) == ledger
    assert await kith.person_count() == 1
    with pytest.raises(InvalidRequest) as reused:
        await kith.label(cluster_id, **{**fields, "new_person_name": "Bert"})
    assert reused.value.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize("size", [6, 501])
@pytest.mark.parametrize("step", ["after the person", "after the faces", "before the end"])
async def test_a_retry_after_a_crash_finishes_the_same_work(
    kith: Kith, running: Running, base: Foundation, monkeypatch: pytest.MonkeyPatch, step: str, size: int
) -> None:
    cluster_id, face_ids = await seed(base, size)
    real = RemotePeople.assign_faces

    async def assign(self: RemotePeople, *arguments: object) -> FacesAssigned:
        if step == "after the person":
            raise RuntimeError("crash")
        await real(self, *arguments)  # type: ignore[arg-type]
        raise RuntimeError("crash")

    async def crash(*_: object) -> None:
        raise RuntimeError("crash")

    fields = {"new_person_name": "Anna", "request_id": str(uuid4()), "etag": (await kith.list_clusters())[0].etag}
    with monkeypatch.context() as patched:
        if step == "before the end":
            patched.setattr(servicer, "end_cluster", crash)
        else:
            patched.setattr(RemotePeople, "assign_faces", assign)
        with pytest.raises(KithError) as crashed:
            await kith.label(cluster_id, **fields)
        assert crashed.value.reason is Reason.INTERNAL_ERROR
    # Somebody else takes a face in between; what was chosen then stays chosen.
    taken = step == "after the person"
    if taken:
        await kith.assign([face_ids[0]], await kith.create("Bert"))
    answer = await kith.label(cluster_id, **fields)
    assert await kith.list_clusters() == []
    await running.worker(start_persons_worker)
    if size > 500:
        assert answer.faces_assigned == 0
        job = await kith.ended(answer.job.id)
        assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
        assert dict(job.result)["assigned"] == size - taken
        failures = list(job.failures)
    else:
        assert answer.faces_assigned == size - taken
        assert not answer.HasField("job")
        failures = list(answer.failures)
    assert [failure.id for failure in failures] == [str(face_id) for face_id in face_ids[:1] if taken]
    assert await kith.face_count(answer.person_id) == size - taken
    assert await kith.person_count() == 1 + taken
    assert await count(base, assignments) == size
    assert await count_changes(base, "FACES_ASSIGNED") == 1 + taken
    async with base.database.transaction() as tx:
        started = select(func.count()).where(jobs.c.kind == "persons.assign_faces")
        assert await tx.scalar(started) == (1 if size > 500 else 0)
    assert await kith.label(cluster_id, **fields) == answer


async def test_a_large_cluster_is_one_change_made_by_a_job(kith: Kith, running: Running, base: Foundation) -> None:
    cluster_id, face_ids = await seed(base, 1200)
    anna, bert = await kith.create("Anna"), await kith.create("Bert")
    await kith.exclude(face_ids[7], anna)
    await kith.assign([face_ids[8]], bert)
    answer = await kith.label(cluster_id, person_id=anna, except_face_ids=[str(face_ids[9])])
    assert (answer.person_id, answer.faces_assigned, list(answer.failures)) == (anna, 0, [])
    assert (answer.job.kind, answer.job.progress.total) == ("persons.assign_faces", 1198)
    # The cluster has ended at once: nobody can label it again while the job is at work.
    assert await kith.list_clusters() == []
    assert await count(base, clusters) == await count(base, cluster_members) == 0
    assert await kith.face_count(anna) == 0
    await running.worker(start_persons_worker)
    job = await kith.ended(answer.job.id)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [(failure.id, failure.reason) for failure in job.failures] == [(str(face_ids[7]), "FACE_EXCLUDED")]
    assert (await kith.face_count(anna), await kith.face_count(bert)) == (1197, 1)
    assert await count_changes(base, "FACES_ASSIGNED") == 2
    await relayed(base)
    behind = [str(face_ids[7]), str(face_ids[9])]
    payloads = await read_payloads(base, base.collections.faces("test_model"), behind)
    assert [(payload["assigned"], payload["cluster_id"]) for payload in payloads] == [(False, None)] * 2


async def test_exactly_so_many_are_assigned_at_once(kith: Kith, base: Foundation) -> None:
    cluster_id, _ = await seed(base, 500)
    answer = await kith.label(cluster_id, new_person_name="Anna")
    assert (answer.faces_assigned, answer.HasField("job")) == (500, False)


async def test_more_faces_than_one_change_can_take_are_refused(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.clustering.domain.labelling.MAX_FACES", 5)
    cluster_id, face_ids = await seed(base)
    with pytest.raises(InvalidRequest) as refused:
        await kith.label(cluster_id, new_person_name="Anna")
    assert refused.value.violations[0].field == "cluster_id"
    assert await kith.person_count() == 0
    answer = await kith.label(cluster_id, new_person_name="Anna", except_face_ids=[str(face_ids[0])])
    assert answer.faces_assigned == 5
