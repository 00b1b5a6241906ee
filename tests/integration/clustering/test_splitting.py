"""SplitCluster: which parts it makes, what becomes of them, and who may come in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import delete, func, select, update

from kith.clustering.v1 import clusters_pb2
from kith.jobs.v1 import jobs_pb2
from services.clustering import jobs
from services.clustering.domain import splitting
from services.clustering.grouping import linkage
from services.clustering.grouping.linkage import CutRequest, Labels
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import face_embeddings, faces
from shared.db.tables_shared import idempotency_keys
from shared.errors import InvalidRequest, KithError, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, crowd, read_payloads, relayed, seed_cluster
from tests.integration.library import MODEL, seed_faces

DISMISSED = clusters_pb2.CLUSTER_STATE_DISMISSED


async def seed(base: Foundation, *sizes: int, seed: int = 0) -> tuple[str, list[list[UUID]]]:
    """A cluster of people with so many faces each; answers its id and the faces by person."""
    seeded = await seed_faces(base, crowd(*sizes, seed=seed))
    ends = np.cumsum(sizes).tolist()
    people = [seeded.face_ids[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    return await seed_cluster(base, seeded.face_ids), people


def names(face_ids: Sequence[UUID]) -> list[str]:
    return [str(face_id) for face_id in face_ids]


def faces_by_part(answer: clusters_pb2.SplitClusterResponse) -> list[set[str]]:
    return [set(part.face_ids) for part in answer.parts]


async def read_members(base: Foundation) -> dict[str, set[str]]:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(cluster_members.c.cluster_id, cluster_members.c.face_id))
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.cluster_id, set()).add(str(row.face_id))
    return found


async def test_the_named_faces_become_a_cluster_of_their_own(kith: Kith, base: Foundation) -> None:
    cluster_id, (anna, bert) = await seed(base, 6, 4)
    before = await kith.get_cluster(cluster_id)
    answer = await kith.split(cluster_id, face_ids=names(bert))
    kept, made = answer.clusters
    assert (kept.id, kept.face_count, made.face_count) == (cluster_id, 6, 4)
    assert (made.number, made.run_id, made.state) == (before.number + 1, before.run_id, before.state)
    assert kept.number == before.number
    assert kept.etag != before.etag
    assert [part.cluster_id for part in answer.parts] == [kept.id, made.id]
    assert faces_by_part(answer) == [set(names(anna)), set(names(bert))]
    # As everybody else reads them, with figures of their own.
    assert sorted(c.id for c in await kith.list_clusters()) == sorted([kept.id, made.id])
    for cluster, part in zip(answer.clusters, answer.parts, strict=True):
        assert await kith.get_cluster(cluster.id) == cluster
        members = await kith.members(cluster.id)
        assert [member.face_id for member in members] == list(part.face_ids)
        assert cluster.medoid_face_id == part.medoid_face_id == members[0].face_id
        assert cluster.cohesion == pytest.approx(part.cohesion, abs=1e-5)
        assert cluster.cohesion == pytest.approx(np.mean([member.confidence for member in members]), abs=1e-5)
        assert cluster.cohesion > 0.95
        assert cluster.separation > 0.8
        assert cluster.cover_face_id in part.face_ids
    assert made.first_captured.ToJsonString() == "2020-01-07T00:00:00Z"
    assert kept.last_captured.ToJsonString() == "2020-01-06T00:00:00Z"
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(cluster_members.c.pinned)) == 10
        stored = {row.cluster_id: row for row in await tx.rows(select(clusters))}
    assert [stored[c.id].face_count for c in answer.clusters] == [6, 4]
    await relayed(base)
    payloads = await read_payloads(base, base.collections.faces(MODEL), names(anna + bert))
    assert {payload["cluster_id"] for payload in payloads} == {kept.id, made.id}


async def test_the_larger_part_keeps_the_id_whichever_was_named(kith: Kith, base: Foundation) -> None:
    cluster_id, (anna, bert) = await seed(base, 6, 4)
    answer = await kith.split(cluster_id, face_ids=names(anna))
    assert answer.clusters[0].id == cluster_id
    assert faces_by_part(answer) == [set(names(anna)), set(names(bert))]


async def test_people_are_parted_as_the_faces_suggest(kith: Kith, base: Foundation) -> None:
    cluster_id, people = await seed(base, 9, 6, 3)
    answer = await kith.split(cluster_id)
    assert faces_by_part(answer) == [set(names(person)) for person in people]
    assert answer.clusters[0].id == cluster_id
    assert len({cluster.id for cluster in answer.clusters}) == 3


async def test_a_preview_tells_the_same_and_changes_nothing(kith: Kith, base: Foundation) -> None:
    cluster_id, people = await seed(base, 9, 6, 3)
    before = await kith.list_clusters()
    request_id = str(uuid4())
    seen = await kith.split(cluster_id, preview=True, request_id=request_id)
    assert not seen.clusters
    assert [part.cluster_id for part in seen.parts] == [cluster_id, "", ""]
    assert faces_by_part(seen) == [set(names(person)) for person in people]
    assert await kith.list_clusters() == before
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(cluster_members.c.pinned)) == 0
        assert await tx.scalar(select(func.count()).select_from(idempotency_keys)) == 0
    made = await kith.split(cluster_id, request_id=request_id)
    assert [(p.face_count, p.cohesion, p.face_ids) for p in made.parts] == [
        (p.face_count, p.cohesion, p.face_ids) for p in seen.parts
    ]


async def test_one_person_is_left_whole(kith: Kith, base: Foundation) -> None:
    cluster_id, (anna,) = await seed(base, 8)
    before = await kith.get_cluster(cluster_id)
    answer = await kith.split(cluster_id)
    assert list(answer.clusters) == [before]
    assert faces_by_part(answer) == [set(names(anna))]
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(cluster_members.c.pinned)) == 0


async def test_by_count_and_by_tightness(kith: Kith, base: Foundation) -> None:
    cluster_id, people = await seed(base, 9, 6, 3)
    two = await kith.split(cluster_id, target_count=2, preview=True)
    assert sorted(part.face_count for part in two.parts) in ([3, 15], [6, 12], [9, 9])
    three = await kith.split(cluster_id, target_count=3, preview=True)
    assert faces_by_part(three) == [set(names(person)) for person in people]
    # More than there are people: the count is kept all the same; more than there are faces: a part each.
    assert len((await kith.split(cluster_id, target_count=7, preview=True)).parts) == 7
    assert len((await kith.split(cluster_id, target_count=100, preview=True)).parts) == 18
    tight = await kith.split(cluster_id, tightness=0.5, preview=True)
    assert faces_by_part(tight) == [set(names(person)) for person in people]
    assert len((await kith.split(cluster_id, tightness=0.0, preview=True)).parts) <= 3
    assert len((await kith.split(cluster_id, tightness=1.0, preview=True)).parts) == 18


async def test_a_face_that_stands_alone_stays_with_its_neighbours(kith: Kith, base: Foundation) -> None:
    vectors = np.concatenate([crowd(6, 5), crowd(1, seed=9)])
    seeded = await seed_faces(base, vectors)
    cluster_id = await seed_cluster(base, seeded.face_ids)
    odd = str(seeded.face_ids[-1])
    suggested = await kith.split(cluster_id, preview=True)
    counted = await kith.split(cluster_id, target_count=2, preview=True)
    for answer in (suggested, counted):
        parts = faces_by_part(answer)
        assert len(parts) == 2
        assert [part - {odd} for part in parts] in (
            [set(names(seeded.face_ids[:6])), set(names(seeded.face_ids[6:11]))],
            [set(names(seeded.face_ids[6:11])), set(names(seeded.face_ids[:6]))],
        )
    tight = await kith.split(cluster_id, tightness=0.5, preview=True)
    assert {odd} in faces_by_part(tight)


async def test_what_is_put_away_stays_away_in_parts(kith: Kith, base: Foundation) -> None:
    cluster_id, (_, bert) = await seed(base, 6, 4)
    await kith.dismiss(cluster_id)
    answer = await kith.split(cluster_id, face_ids=names(bert))
    assert [cluster.state for cluster in answer.clusters] == [DISMISSED, DISMISSED]
    assert await kith.list_clusters() == []
    assert len(await kith.list_clusters(states=[DISMISSED])) == 2


async def test_requests_that_cannot_be(kith: Kith, base: Foundation) -> None:
    cluster_id, (anna, bert) = await seed(base, 6, 4)
    stranger = str((await seed_faces(base, crowd(1, seed=5))).face_ids[0])
    refused: list[tuple[dict[str, Any], str]] = [
        ({"target_count": 1}, "target_count"),
        ({"target_count": 101}, "target_count"),
        ({"tightness": -0.1}, "tightness"),
        ({"tightness": 1.5}, "tightness"),
        ({"tightness": float("nan")}, "tightness"),
        ({"target_count": 2, "face_ids": names(bert)}, "target_count"),
        ({"tightness": 0.5, "face_ids": names(bert)}, "tightness"),
        ({"face_ids": [str(bert[0]), stranger]}, "face_ids[1]"),
        ({"face_ids": [str(bert[0])] * 2}, "face_ids"),
        ({"face_ids": ["x"]}, "face_ids[0]"),
        ({"face_ids": names(anna + bert)}, "face_ids"),
        ({"face_ids": [str(uuid4()) for _ in range(10_001)]}, "face_ids"),
    ]
    for fields, field in refused:
        for preview in (False, True):
            with pytest.raises(InvalidRequest) as error:
                await kith.split(cluster_id, preview=preview, **fields)
            assert error.value.violations[0].field == field, fields
    with pytest.raises(PreconditionFailed) as missing:
        await kith.split(cluster_id, "", face_ids=names(bert))
    assert missing.value.reason is Reason.ETAG_REQUIRED
    assert missing.value.metadata == {"resource": "cluster", "id": cluster_id}
    assert [cluster.id for cluster in await kith.list_clusters()] == [cluster_id]


async def test_too_many_parts_and_too_many_faces(kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_id, (_, bert) = await seed(base, 8, 4)
    monkeypatch.setattr(splitting, "MAX_PARTS", 10)
    with pytest.raises(InvalidRequest) as refused:
        await kith.split(cluster_id, tightness=1.0)
    assert refused.value.violations[0].field == "tightness"
    monkeypatch.setattr(splitting, "MAX_CUT_FACES", 11)
    with pytest.raises(KithError) as large:
        await kith.split(cluster_id)
    assert (large.value.code, large.value.reason) == ("RESOURCE_EXHAUSTED", Reason.MEMORY_BUDGET)
    assert set(large.value.metadata) == {"needed_mb", "budget_mb"}
    assert len((await kith.split(cluster_id, face_ids=names(bert))).clusters) == 2


async def test_a_large_cluster_is_cut_in_a_process_of_its_own(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_id, people = await seed(base, 9, 6)
    used: list[int] = []
    real = linkage.cut_in_process

    def cut(request: CutRequest, *told: Any) -> Labels:
        used.append(len(request.vectors))
        return real(request, *told)

    monkeypatch.setattr(splitting, "CUT_HERE", 10)
    monkeypatch.setattr(splitting, "cut_in_process", cut)
    assert faces_by_part(await kith.split(cluster_id)) == [set(names(person)) for person in people]
    assert used == [15]


async def test_faces_that_are_not_live_or_have_no_embedding(kith: Kith, base: Foundation) -> None:
    cluster_id, (anna, bert) = await seed(base, 7, 5)
    await kith.assign(anna[:1], await kith.create("Anna"))
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == anna[1]).values(state="IGNORED"))
        await tx.execute(delete(face_embeddings).where(face_embeddings.c.face_id == bert[4]))
    with pytest.raises(InvalidRequest):
        await kith.split(cluster_id, face_ids=names(anna[:1]))
    answer = await kith.split(cluster_id)
    # The one without an embedding is with the largest part, and last there.
    assert faces_by_part(answer) == [{*names(anna[2:]), str(bert[4])}, set(names(bert[:4]))]
    assert answer.parts[0].face_ids[-1] == str(bert[4])
    # Those that were not there stay where they were, so that they are found there if they come back.
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == anna[1]).values(state="ACTIVE"))
    assert str(anna[1]) in {member.face_id for member in await kith.members(cluster_id)}


async def test_a_stale_etag_and_a_cluster_that_is_gone(kith: Kith, base: Foundation) -> None:
    cluster_id, (anna, bert) = await seed(base, 6, 4)
    shown = (await kith.get_cluster(cluster_id)).etag
    await kith.assign(anna[:1], await kith.create("Anna"))
    for preview in (False, True):
        with pytest.raises(KithError) as refused:
            await kith.split(cluster_id, shown, face_ids=names(bert), preview=preview)
        assert (refused.value.code, refused.value.reason) == ("ABORTED", Reason.CLUSTER_CHANGED)
        assert refused.value.metadata["current_etag"] == (await kith.get_cluster(cluster_id)).etag
    with pytest.raises(KithError) as gone:
        await kith.split("clu_000000000000", shown, face_ids=names(bert))
    assert gone.value.reason is Reason.CLUSTER_CHANGED


async def test_a_replay_cuts_nothing_twice(kith: Kith, base: Foundation) -> None:
    cluster_id, (_, bert) = await seed(base, 6, 4)
    shown = (await kith.get_cluster(cluster_id)).etag
    fields = {"face_ids": names(bert), "request_id": str(uuid4())}
    twins = await asyncio.gather(*(kith.split(cluster_id, shown, **fields) for _ in range(4)))
    assert all(twin == twins[0] for twin in twins)
    assert await kith.split(cluster_id, shown, **fields) == twins[0]
    assert len(await kith.list_clusters()) == 2
    with pytest.raises(InvalidRequest) as reused:
        await kith.split(cluster_id, shown, **{**fields, "face_ids": names(bert[:2])})
    assert reused.value.reason is Reason.REQUEST_ID_REUSED


async def test_of_two_splits_at_once_one_is_refused(kith: Kith, base: Foundation) -> None:
    cluster_id, people = await seed(base, 9, 6, 3)
    shown = (await kith.get_cluster(cluster_id)).etag
    answers = await asyncio.gather(
        *(kith.split(cluster_id, shown, face_ids=names(person)) for person in people), return_exceptions=True
    )
    made = [answer for answer in answers if isinstance(answer, clusters_pb2.SplitClusterResponse)]
    refused = [answer for answer in answers if isinstance(answer, KithError)]
    assert len(made) == 1
    assert [error.reason for error in refused] == [Reason.CLUSTER_CHANGED] * 2
    assert len(await kith.list_clusters()) == 2
    assert sum(len(members) for members in (await read_members(base)).values()) == 18


async def test_what_changes_while_it_is_cut_is_seen(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_id, (anna, bert) = await seed(base, 6, 4)
    person_id = await kith.create("Anna")
    real = splitting.store_parts

    async def overtaken(*arguments: Any) -> Any:
        await kith.assign(anna[:1], person_id)
        return await real(*arguments)

    monkeypatch.setattr("services.clustering.servicers.cluster.store_parts", overtaken)
    with pytest.raises(KithError) as refused:
        await kith.split(cluster_id, face_ids=names(bert))
    assert refused.value.reason is Reason.CLUSTER_CHANGED
    assert [cluster.face_count for cluster in await kith.list_clusters()] == [9]


@pytest.mark.usefixtures("grouping_here")
async def test_parts_outlive_later_runs(kith: Kith, base: Foundation) -> None:
    # One person's faces in two clusters, because a human says so.
    cluster_id, (anna,) = await seed(base, 12)
    answer = await kith.split(cluster_id, face_ids=names(anna[8:]))
    wanted = {cluster.id: set(part.face_ids) for cluster, part in zip(answer.clusters, answer.parts, strict=True)}
    for _ in range(2):
        job = await kith.cluster()
        assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
        assert await read_members(base) == wanted


@pytest.mark.usefixtures("grouping_here")
async def test_parts_outlive_a_run_that_read_its_faces_before(
    kith: Kith, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_id, (anna,) = await seed(base, 12)
    wanted: dict[str, set[str]] = {}
    real = jobs.group_in_process  # type: ignore[attr-defined]

    def group(*arguments: Any) -> Any:
        answer = asyncio.run_coroutine_threadsafe(kith.split(cluster_id, face_ids=names(anna[8:])), loop).result(
            timeout=30
        )
        wanted.update(zip((c.id for c in answer.clusters), faces_by_part(answer), strict=True))
        return real(*arguments)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(jobs, "group_in_process", group)
    assert (await kith.cluster()).state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert len(wanted) == 2
    assert await read_members(base) == wanted
