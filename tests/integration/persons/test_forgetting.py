"""ForgetPerson over real gRPC, PostgreSQL and Qdrant: nothing of a person is left anywhere, and that is proven."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update

from kith.persons.v1 import changes_pb2
from kith.persons.v1 import persons_pb2 as pb
from services.persons.repository.matchers import get_matcher
from shared.db.tables_detection import faces
from shared.db.tables_persons import assignments, changes
from shared.errors import PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.library import MODEL, random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient
from tests.integration.persons.forgetting import OLD_MODEL, World, make_handlers, working
from tests.integration.persons.forgotten import assert_nothing_left, find_in_qdrant, find_in_tables, stores_of
from tests.integration.persons.training import REPORT, store_matcher


async def test_nothing_is_left_of_a_person_but_the_receipt(
    client: PersonsClient, world: World, base: Foundation
) -> None:
    async with working(base, make_handlers(base)):
        job = await client.ended(await client.forget(world.her, await client.etag(world.her), delete_faces=True))
    stores = stores_of(job)
    await assert_nothing_left(base, world)
    # Faces 0..4, 6 and 7 were theirs; 5 had become Bert's.
    gone = [world.seeded.face_ids[number] for number in (0, 1, 2, 3, 4, 6, 7)]
    async with base.database.transaction() as tx:
        left = await tx.scalar(select(func.count()).select_from(faces).where(faces.c.face_id == func.any(gone)))
        counted = await tx.scalar(text("SELECT sum(face_count) FROM assets"))
    assert (left, counted) == (0, 24 - 7)
    assert await find_in_qdrant(base, [str(face_id) for face_id in gone]) == []
    prefix = base.settings.qdrant.prefix
    expected = {
        "postgres.faces": 7,
        "postgres.face_embeddings": 14,
        "postgres.exclusions": 1,
        "postgres.centroids": 2,
        "postgres.persons": 2,
        "detection.crops": 0,
        f"qdrant.{prefix}_faces_{MODEL}": 7,
        f"qdrant.{prefix}_faces_{OLD_MODEL}": 7,
        f"qdrant.{prefix}_centroids_{MODEL}": 1,
        f"qdrant.{prefix}_centroids_{OLD_MODEL}": 1,
    }
    assert {name: stores[name] for name in expected} == expected
    # Of the four questions three were about her; in the evidence for Bert she was next best.
    assert (stores["postgres.suggestions"], stores["postgres.reviews"]) == (4, 2)
    assert stores["postgres.auto_finds"] == 1
    assert stores["postgres.idempotency_keys"] >= 10
    receipt = await client.get_receipt(world.part)
    assert (receipt.job_id, receipt.faces_deleted, receipt.HasField("complete_time")) == (job.id, True, True)
    assert {each.store: each.deleted_count for each in receipt.stores} == stores


async def test_faces_may_stay_as_nobodys(client: PersonsClient, world: World, base: Foundation) -> None:
    async with working(base, make_handlers(base)):
        job = await client.ended(await client.forget(world.her, await client.etag(world.her)))
    stores = stores_of(job)
    await assert_nothing_left(base, world)
    assert not {"postgres.faces", "detection.crops"} & stores.keys()
    assert stores["postgres.assignments"] == 7
    assert stores["postgres.prototypes"] > 0
    assert stores[f"qdrant.{base.settings.qdrant.prefix}_faces_{MODEL}"] == 7
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(faces)) == 24
        assert await tx.scalar(select(func.count()).select_from(assignments)) == 4
    records = await base.qdrant.retrieve(base.collections.faces(OLD_MODEL), [str(world.seeded.face_ids[0])])
    assert (records[0].payload or {})["assigned"] is False


async def test_what_was_done_to_others_stays_and_can_be_undone(
    client: PersonsClient, world: World, base: Foundation
) -> None:
    seen = await list_changes(client)
    async with working(base, make_handlers(base)):
        await client.ended(await client.forget(world.her, await client.etag(world.her)))
    now = await list_changes(client)
    assert len(now) == len(seen) + 1
    for change_id, before in seen.items():
        after = now[change_id]
        assert (after.kind, after.actor, after.create_time, after.rpc) == (
            before.kind,
            before.actor,
            before.create_time,
            before.rpc,
        )
    moved = now[world.to_bert]
    assert (list(moved.person_ids), list(moved.face_ids), moved.reason) == (
        [world.bert],
        list(seen[world.to_bert].face_ids),
        "",
    )
    (face,) = (await client.changes.ListChangeFaces(changes_pb2.ListChangeFacesRequest(change_id=world.to_bert))).faces
    assert (face.HasField("before"), face.after.person_id) == (False, world.bert)
    undone = await client.undo(world.to_bert)
    assert undone.reverted_count == 1
    # That Carl was part of her for a while is nobody's business any more, and never comes back.
    async with base.database.transaction() as tx:
        undo = await tx.scalar(select(changes.c.change_id).where(changes.c.undoes == UUID(world.undone_merge)))
    with pytest.raises(PreconditionFailed) as refused:
        async with translate_errors("persons"):
            await client.undo(str(undo))
    assert refused.value.reason is Reason.CHANGE_NOT_UNDOABLE
    carl = await client.get(world.carl, deleted=False)
    assert (carl.name, carl.face_count, carl.status) == ("Carl", 1, pb.PERSON_STATUS_ACTIVE)


async def list_changes(client: PersonsClient) -> dict[str, changes_pb2.Change]:
    """Every change, by id."""
    answer = await client.changes.ListChanges(changes_pb2.ListChangesRequest(page_size=500))
    assert not answer.next_page_token
    return {change.id: change for change in answer.changes}


async def test_a_deleted_person_is_forgotten_with_the_faces_they_had(
    client: PersonsClient, world: World, base: Foundation
) -> None:
    await client.delete(world.her)
    async with working(base, make_handlers(base)):
        job = await client.forget(world.her, await client.etag(world.her), delete_faces=True)
        stores = stores_of(await client.ended(job))
    assert (stores["postgres.faces"], stores["postgres.assignments"]) == (7, 0)
    await assert_nothing_left(base, world)


async def test_no_log_says_who_it_was(
    client: PersonsClient, world: World, base: Foundation, capfd: pytest.CaptureFixture[str]
) -> None:
    async with working(base, make_handlers(base)):
        await client.ended(await client.forget(world.her, await client.etag(world.her)))
    told = "".join(capfd.readouterr())
    assert not any(trace in told for trace in world.traces())


async def test_a_change_that_does_not_name_the_person_loses_them_too(client: PersonsClient, base: Foundation) -> None:
    """As version N-1 enters the undo of an assignment and of an exclusion, once the person is part of another."""
    seeded = await seed_faces(base, random_vectors(2))
    anna, eve = [await client.create(name) for name in ("Anna", "Eve")]
    assigned = (await client.assign(seeded.face_ids[0], anna)).change_id
    excluded = (await client.exclude(seeded.face_ids[1], anna)).change_id
    merged = (await client.merge(eve, anna)).change_id
    undone = [(await client.undo(change_id)).change.id for change_id in (assigned, excluded)]
    await client.undo(merged)
    async with base.database.transaction() as tx:
        stale = update(changes).where(changes.c.change_id.in_([UUID(change_id) for change_id in undone]))
        await tx.execute(stale.values(person_ids=[UUID(anna)]))
    async with working(base, make_handlers(base)):
        stores_of(await client.ended(await client.forget(eve, await client.etag(eve))))
    assert await find_in_tables(base, eve) == {"receipts": 1, "changes": 1}
    left = await list_changes(client)
    assert [(list(left[change_id].person_ids), left[change_id].face_count) for change_id in undone] == [([anna], 0)] * 2


@pytest.mark.parametrize("name", ["Faces", "Before"])
async def test_what_a_matcher_reports_is_not_taken_for_a_name(
    client: PersonsClient, base: Foundation, name: str
) -> None:
    matcher_id = await store_matcher(base)
    person = (await client.create_person(name)).person
    async with working(base, make_handlers(base)):
        stores_of(await client.ended(await client.forget(person.id, person.etag)))
    async with base.database.transaction() as tx:
        assert (await get_matcher(tx, "default", UUID(matcher_id))).report == REPORT
