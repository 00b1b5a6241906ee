"""DeleteAssets over real gRPC: all of a photo goes, in every service, and what is left still adds up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import func, insert, select, update

from kith.detection.v1 import assets_pb2
from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import persons_pb2
from services.clustering.domain import grouping_run
from services.clustering.repository.memberships import clear_assigned
from services.detection.domain.model import DetectionDeps
from services.detection.domain.removing import delete_assets
from services.persons.worker import start as start_persons_worker
from shared.db.engine import Transaction
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_persons import assignments, exclusions, persons, prototypes
from shared.db.tables_suggestions import suggestions
from shared.errors import InvalidRequest, KithError, NotFound
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.clustering.conftest import grouping_here
from tests.integration.clustering.kit import Kith, crowd, relayed, seed_cluster, start_kith
from tests.integration.conftest import Running, eventually
from tests.integration.counting import recording_statements
from tests.integration.detection.client import DetectionClient, count_stored
from tests.integration.detection.conftest import Album
from tests.integration.detection.known import get_asset, look_at_album, relay
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.waiting import somebody_waits

__all__ = ["grouping_here"]


async def delete(
    detection: DetectionClient, asset_ids: Sequence[str], request_id: str = ""
) -> assets_pb2.DeleteAssetsResponse:
    request = assets_pb2.DeleteAssetsRequest(asset_ids=asset_ids, request_id=request_id)
    async with translate_errors("detection"):
        return await detection.assets.DeleteAssets(request)


async def test_photos_go_with_their_faces_and_points_and_once(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    known = await look_at_album(detection, running, base, stack, album, 4)
    gone = [face for face in known if face.asset_id in {"photo-1", "photo-3"}]
    assert gone
    request_id = str(uuid4())
    answer = await delete(detection, ["photo-3", "photo-1"], request_id)
    assert (answer.assets_deleted, answer.faces_deleted) == (2, len(gone))
    assert await delete(detection, ["photo-3", "photo-1"], request_id) == answer
    assert await detection.list_faces() == [face for face in known if face not in gone]
    with pytest.raises(NotFound, match="'photo-1'"):
        await get_asset(detection, "photo-1")
    await relay(base)
    assert await count_stored(base) == (len(known) - len(gone),) * 2
    assert (await detection.check()).consistent


async def test_all_or_none_and_every_missing_one_is_named(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    known = await look_at_album(detection, running, base, stack, album, 2)
    with pytest.raises(NotFound, match="'nobody'") as caught:
        await delete(detection, ["photo-0", "nobody", "photo-1", "else"])
    assert caught.value.metadata == {"resource": "asset", "id": "nobody"}
    assert [violation.field for violation in caught.value.violations] == ["asset_ids[1]", "asset_ids[3]"]
    wrong = {
        "asset_ids": [[], [str(number) for number in range(501)]],
        "asset_ids[1]": [["photo-0", "photo-0"], ["photo-0", ""]],
    }
    for field, cases in wrong.items():
        for case in cases:
            with pytest.raises(InvalidRequest) as refused:
                await delete(detection, case)
            assert [violation.field for violation in refused.value.violations] == [field]
    assert await detection.list_faces() == known


@dataclass(frozen=True, slots=True)
class Peopled:
    """A library with all that other services keep of faces, one face to a photo."""

    kith: Kith
    seeded: SeededFaces
    person_id: str
    cluster_id: str


@pytest.fixture
async def peopled(detection: DetectionClient, running: Running, base: Foundation) -> Peopled:
    """Faces 0..5 are a person's, 6..11 a cluster, face 12 is excluded from the person and is asked about."""
    seeded = await seed_faces(base, crowd(6, 6, 3), qualities=[0.5 + 0.01 * row for row in range(15)])
    kith = await start_kith(running)
    await running.worker(start_persons_worker)
    person_id = await kith.create("Ada")
    await kith.assign(seeded.face_ids[:6], person_id)
    await kith.exclude(seeded.face_ids[12], person_id)
    cluster_id = await seed_cluster(base, seeded.face_ids[6:12])
    async with base.database.transaction() as tx:
        await ask(tx, base, UUID(person_id), seeded.face_ids[6], seeded.asset_ids[6])
    return Peopled(kith, seeded, person_id, cluster_id)


async def ask(tx: Transaction, base: Foundation, person_id: UUID, face_id: UUID, asset_id: str) -> None:
    """A pending suggestion, as the suggestions service would have stored it."""
    row = {
        "suggestion_id": base.ids.new_uuid(),
        "library_id": "default",
        "face_id": face_id,
        "asset_id": asset_id,
        "person_id": person_id,
        "confidence": 0.7,
        "evidence": {},
        "method": "PROTOTYPES",
        "created_at": base.clock.now(),
    }
    await tx.execute(insert(suggestions), row)


async def get_person(kith: Kith, person_id: str) -> persons_pb2.Person:
    return (await kith.people.GetPerson(persons_pb2.GetPersonRequest(person_id=person_id))).person


async def test_people_and_clusters_add_up_afterwards(
    peopled: Peopled, detection: DetectionClient, base: Foundation
) -> None:
    kith, seeded = peopled.kith, peopled.seeded
    before = await get_person(kith, peopled.person_id)
    # The best face is the cover; photos are a day apart.
    assert (before.face_count, before.cover_face_id) == (6, str(seeded.face_ids[5]))
    stored = await kith.list_clusters()
    assert [cluster.face_count for cluster in stored] == [6]
    removed = [0, 5, 6, 11, 12]
    answer = await delete(detection, [seeded.asset_ids[row] for row in removed])
    assert (answer.assets_deleted, answer.faces_deleted) == (5, 5)

    async def refreshed() -> bool:
        return (await get_person(kith, peopled.person_id)).face_count == 4

    await eventually(refreshed)
    after = await get_person(kith, peopled.person_id)
    assert after.cover_face_id == str(seeded.face_ids[4])
    day = 24 * 3600
    assert after.first_seen.seconds == before.first_seen.seconds + day
    assert after.last_seen.seconds == before.last_seen.seconds - day
    assert after.etag == before.etag
    listed = await kith.list_clusters()
    assert [(cluster.id, cluster.face_count) for cluster in listed] == [(peopled.cluster_id, 4)]
    assert listed[0].etag != stored[0].etag
    members = {member.face_id for member in await kith.members(peopled.cluster_id)}
    assert members == {str(seeded.face_ids[row]) for row in (7, 8, 9, 10)}
    gone = [seeded.face_ids[row] for row in removed]
    async with base.database.transaction() as tx:
        for table in (faces, face_embeddings, assignments, prototypes, exclusions, cluster_members, suggestions):
            assert await tx.scalar(select(func.count()).select_from(table).where(table.c.face_id.in_(gone))) == 0
        held = set(await tx.rows(select(prototypes.c.face_id)))
        assert {row.face_id for row in held} <= set(seeded.face_ids[1:5])
        assert held
    await relayed(base)
    assert (await detection.check()).consistent


async def test_a_person_is_left_without_faces(peopled: Peopled, detection: DetectionClient) -> None:
    kith, seeded = peopled.kith, peopled.seeded
    await delete(detection, seeded.asset_ids[:6])

    async def refreshed() -> bool:
        return (await get_person(kith, peopled.person_id)).face_count == 0

    await eventually(refreshed)
    person = await get_person(kith, peopled.person_id)
    assert (person.cover_face_id, person.HasField("first_seen"), person.HasField("last_seen")) == ("", False, False)
    await delete(detection, seeded.asset_ids[6:12])
    assert await kith.list_clusters() == []
    with pytest.raises(NotFound, match="cluster"):
        await kith.members(peopled.cluster_id)


async def test_statements_do_not_grow_with_photos(base: Foundation) -> None:
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    seeded = await seed_faces(base, random_vectors(60), faces_per_photo=3)
    names = list(dict.fromkeys(seeded.asset_ids))
    counts = []
    for some in (names[:1], names[1:]):
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                answer = await delete_assets(tx, deps, "default", some)
        assert answer.faces == 3 * len(some)
        counts.append(len(sent))
    assert counts[0] == counts[1] <= 13


async def test_a_person_whose_next_cover_is_being_deleted(
    peopled: Peopled, detection: DetectionClient, base: Foundation
) -> None:
    """The deletion waits for the person, and who holds the person does not wait for the face it is about to show."""
    person_id, face_id = UUID(peopled.person_id), peopled.seeded.face_ids[3]
    async with base.database.transaction() as tx:
        await tx.execute(
            select(persons.c.person_id).where(persons.c.person_id == person_id).with_for_update(key_share=True)
        )
        deletion = asyncio.create_task(delete(detection, [peopled.seeded.asset_ids[3]]))
        await eventually(lambda: somebody_waits(base))
        await tx.execute(update(persons).where(persons.c.person_id == person_id).values(cover_face_id=face_id))
    assert (await deletion).faces_deleted == 1

    async def refreshed() -> bool:
        person = await get_person(peopled.kith, peopled.person_id)
        return (person.face_count, person.cover_face_id) == (5, str(peopled.seeded.face_ids[5]))

    await eventually(refreshed)


async def test_a_face_that_another_person_gets_meanwhile(
    peopled: Peopled, detection: DetectionClient, base: Foundation
) -> None:
    """A merge moves faces under the locks of their persons alone: who deletes one looks again whose it is."""
    kith, seeded = peopled.kith, peopled.seeded
    survivor = await kith.create("Bert")
    both = [UUID(peopled.person_id), UUID(survivor)]
    async with base.database.transaction() as tx:
        await tx.execute(
            select(persons.c.person_id).where(persons.c.person_id.in_(both)).with_for_update(key_share=True)
        )
        deletion = asyncio.create_task(delete(detection, [seeded.asset_ids[3]]))
        await eventually(lambda: somebody_waits(base))
        await tx.execute(update(prototypes).values(person_id=both[1]))
        await tx.execute(update(assignments).values(person_id=both[1]))
        await tx.execute(update(persons).where(persons.c.person_id == both[1]).values(face_count=6))
    assert (await deletion).faces_deleted == 1

    async def refreshed() -> bool:
        return (await get_person(kith, survivor)).face_count == 5

    await eventually(refreshed)


async def test_a_run_that_stores_clusters_and_a_deletion_wait_for_each_other(
    peopled: Peopled,
    detection: DetectionClient,
    base: Foundation,
    grouping_here: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The deletion comes while the run holds its rows of members and has yet to refer to a face of the cluster."""
    kith, seeded = peopled.kith, peopled.seeded
    job = await kith.cluster(min_cluster_size=3)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    async with base.database.transaction() as tx:
        # So that the next run writes a cover, which refers to a face.
        await tx.execute(update(clusters).values(cover_face_id=None))
    deletion: list[asyncio.Task[assets_pb2.DeleteAssetsResponse]] = []

    async def clear_while_deleting(tx: Transaction, library_id: str) -> None:
        deletion.append(asyncio.create_task(delete(detection, seeded.asset_ids[6:12])))
        await eventually(lambda: somebody_waits(base))
        await clear_assigned(tx, library_id)

    monkeypatch.setattr(grouping_run, "clear_assigned", clear_while_deleting)
    job = await kith.cluster(min_cluster_size=3)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert len(deletion) == 1
    assert (await deletion[0]).faces_deleted == 6
    left = {str(face_id) for face_id in [*seeded.face_ids[12:]]}
    for cluster in await kith.list_clusters():
        assert {member.face_id for member in await kith.members(cluster.id)} <= left


async def test_deletions_and_assignments_at_once(
    detection: DetectionClient, running: Running, base: Foundation
) -> None:
    """Every call ends as if it had been alone: nobody is told that somebody else held the rows."""
    people, each = 3, 16
    seeded = await seed_faces(base, random_vectors(people * each), faces_per_photo=4)
    kith = await start_kith(running)
    await running.worker(start_persons_worker)
    owners = [await kith.create(f"Person {number}") for number in range(people)]
    for number, owner in enumerate(owners):
        await kith.assign(seeded.face_ids[number::people][:10], owner)
    names = list(dict.fromkeys(seeded.asset_ids))
    order = np.random.default_rng(5).permutation(len(names))
    free = [row for row in range(people * each) if row // people >= 10]

    async def give(row: int) -> None:
        await kith.assign([seeded.face_ids[row]], owners[(row + 1) % people])

    deletions = [delete(detection, [names[at] for at in order[start : start + 3]]) for start in range(0, 9, 3)]
    outcomes = await asyncio.gather(*deletions, *(give(row) for row in free), return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, NotFound) for outcome in outcomes[len(deletions) :]), outcomes
    assert not [outcome for outcome in outcomes[: len(deletions)] if isinstance(outcome, KithError)], outcomes

    async def settled() -> bool:
        async with base.database.transaction() as tx:
            held = {
                str(row.person_id): row.faces
                for row in await tx.rows(
                    select(assignments.c.person_id, func.count().label("faces")).group_by(assignments.c.person_id)
                )
            }
        return [await kith.face_count(owner) for owner in owners] == [held.get(owner, 0) for owner in owners]

    await eventually(settled)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(assets)) == len(names) - 9
