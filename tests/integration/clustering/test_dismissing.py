"""DismissCluster: who is put away is shown to nobody, stays away through runs, and comes back on request."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from kith.clustering.v1 import clusters_pb2
from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import persons_pb2
from shared.db.tables_shared import vector_outbox
from shared.errors import KithError, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, crowd, relayed, seed_cluster
from tests.integration.library import seed_faces

ACTIVE = clusters_pb2.CLUSTER_STATE_ACTIVE
DISMISSED = clusters_pb2.CLUSTER_STATE_DISMISSED


async def seed_two(base: Foundation) -> tuple[list[UUID], list[str]]:
    """Clusters of 5 and 4 faces, of two people."""
    ids = (await seed_faces(base, crowd(5, 4))).face_ids
    return ids, [await seed_cluster(base, part) for part in (ids[:5], ids[5:])]


async def list_people(kith: Kith) -> list[tuple[str, int]]:
    answer = await kith.people.ListPeople(persons_pb2.ListPeopleRequest(include_noise=True))
    return [(entry.display_name, entry.face_count) for entry in answer.people]


async def test_it_is_shown_only_to_those_who_ask_for_it(kith: Kith, base: Foundation) -> None:
    _, (stranger, other) = await seed_two(base)
    before = await kith.get_cluster(stranger)
    put_away = await kith.dismiss(stranger)
    assert put_away.state == DISMISSED
    assert (put_away.etag, put_away.number, put_away.face_count) == (before.etag, before.number, 5)
    assert put_away.update_time.ToDatetime() > before.update_time.ToDatetime()
    assert await kith.get_cluster(stranger) == put_away
    assert [cluster.id for cluster in await kith.list_clusters()] == [other]
    assert await kith.list_clusters(states=[DISMISSED]) == [put_away]
    assert [cluster.id for cluster in await kith.list_clusters(states=[ACTIVE, DISMISSED])] == [stranger, other]
    # Nor on the people page, as a group or among the faces in none.
    assert await list_people(kith) == [("Unnamed 2", 4), ("In no group", 0)]
    restored = await kith.dismiss(stranger, restore=True)
    assert (restored.state, restored.etag) == (ACTIVE, before.etag)
    assert [cluster.id for cluster in await kith.list_clusters()] == [stranger, other]
    assert await list_people(kith) == [("Unnamed 1", 5), ("Unnamed 2", 4), ("In no group", 0)]


async def test_nothing_changes_twice_and_no_point_is_written(kith: Kith, base: Foundation) -> None:
    _, (stranger, _) = await seed_two(base)
    await relayed(base)
    etag = (await kith.get_cluster(stranger)).etag
    request_id = str(uuid4())
    twins = await asyncio.gather(*(kith.dismiss(stranger, etag, request_id=request_id) for _ in range(4)))
    assert all(twin == twins[0] for twin in twins)
    assert await kith.dismiss(stranger, etag) == twins[0]
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(vector_outbox)) == 0
    # A replay is answered as it was, whatever came since.
    await kith.dismiss(stranger, etag, restore=True)
    assert await kith.dismiss(stranger, etag, request_id=request_id) == twins[0]
    assert (await kith.get_cluster(stranger)).state == ACTIVE


async def test_a_stale_etag_and_none(kith: Kith, base: Foundation) -> None:
    ids, (stranger, _) = await seed_two(base)
    shown = (await kith.get_cluster(stranger)).etag
    await kith.assign(ids[:1], await kith.create("Anna"))
    with pytest.raises(KithError) as stale:
        await kith.dismiss(stranger, shown)
    assert (stale.value.code, stale.value.reason) == ("ABORTED", Reason.CLUSTER_CHANGED)
    assert stale.value.metadata["current_etag"] == (await kith.get_cluster(stranger)).etag
    with pytest.raises(KithError) as gone:
        await kith.dismiss("clu_000000000000", shown)
    assert gone.value.reason is Reason.CLUSTER_CHANGED
    with pytest.raises(PreconditionFailed) as missing:
        await kith.dismiss(stranger, "")
    assert missing.value.reason is Reason.ETAG_REQUIRED
    assert (await kith.get_cluster(stranger)).state == ACTIVE


@pytest.mark.usefixtures("grouping_here")
async def test_it_stays_away_when_new_faces_come_and_can_be_labelled_all_the_same(kith: Kith, base: Foundation) -> None:
    vectors = crowd(9, 6)
    first = await seed_faces(base, vectors[[0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14]])
    assert (await kith.cluster()).state == jobs_pb2.JOB_STATE_SUCCEEDED
    stranger, known = await kith.list_clusters()
    assert (stranger.face_count, known.face_count) == (7, 6)
    await kith.dismiss(stranger.id)
    late = await seed_faces(base, vectors[7:9])
    assert (await kith.cluster()).state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [cluster.id for cluster in await kith.list_clusters()] == [known.id]
    (away,) = await kith.list_clusters(states=[DISMISSED])
    assert (away.id, away.face_count) == (stranger.id, 9)
    assert {str(face_id) for face_id in late.face_ids} <= {member.face_id for member in await kith.members(away.id)}
    answer = await kith.label(away.id, new_person_name="Anna")
    assert answer.faces_assigned == 9
    assert await kith.face_count(answer.person_id) == 9
    assert str(first.face_ids[0]) not in {member.face_id for member in await kith.members(known.id)}
