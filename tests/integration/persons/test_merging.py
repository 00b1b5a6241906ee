"""Merging, un-merging, deleting and undoing, over real gRPC: exactly as it was, and nothing of what came later."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from kith.common.v1 import types_pb2
from kith.persons.v1 import changes_pb2, persons_pb2
from services.persons.domain.assigning import AssignFaces, assign_faces
from services.persons.domain.merging import MergePersons, merge_persons
from services.persons.domain.model import PersonsDeps
from services.persons.domain.people import CreatePerson, create_person
from services.persons.domain.undoing import Undo, undo_change
from shared.caller import Caller
from shared.db.tables_persons import change_faces, changes
from shared.errors import AlreadyExists, EtagMismatch, InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import MACHINE, PersonsClient, ask
from tests.integration.persons.ledger import ids, read_state


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(12))


async def test_a_merge_moves_everything_and_its_undo_restores_it_exactly(
    client: PersonsClient, base: Foundation, seeded: SeededFaces
) -> None:
    faces = ids(seeded.face_ids)
    anna = await client.create("Anna")
    ann = await client.create("Ann", birth_date=types_pb2.Date(year=1980))
    await client.assign_all(faces[:3], anna)
    await client.assign_all(faces[3:6], ann)
    await client.assign_all(faces[6:8], ann, MACHINE)
    await client.exclude(faces[9], ann)
    before = await read_state(base)

    tried = await client.merge(anna, ann, dry_run=True)
    assert (tried.faces_moved, tried.exclusions_moved, tried.change_id) == (5, 1, "")
    assert await read_state(base) == before

    merged = await client.merge(anna, ann)
    assert (merged.faces_moved, merged.exclusions_moved) == (5, 1)
    assert merged.survivor.face_count == 8
    assert merged.survivor.birth_date.year == 1980, "only one knew it"
    part = await client.get(ann)
    assert (part.status, part.merged_into, part.face_count) == (persons_pb2.PERSON_STATUS_MERGED, anna, 0)
    with pytest.raises(PreconditionFailed) as excluded:
        await client.assign_all([faces[9]], anna)
    assert excluded.value.reason is Reason.FACE_EXCLUDED

    undone = await client.undo(merged.change_id)
    assert undone.reverted_count == 5 + 2 + 2
    assert not undone.skipped
    assert await read_state(base) == before


async def test_faces_the_survivor_got_after_the_merge_stay_with_it(
    client: PersonsClient, base: Foundation, seeded: SeededFaces
) -> None:
    faces = ids(seeded.face_ids)
    anna, ann = await client.create("Anna"), await client.create("Ann")
    await client.assign_all(faces[:2], anna)
    await client.assign_all(faces[2:5], ann)
    merged = await client.merge(anna, ann)
    await client.assign_all(faces[5:7], anna)
    await client.unassign(faces[2])
    undone = await client.undo(merged.change_id)
    assert [(item.id, item.reason) for item in undone.skipped] == [(faces[2], "CHANGED_SINCE")]
    held = (await read_state(base))["assignments"]
    assert {str(face): str(row[0]) for face, row in held.items()} == {
        **dict.fromkeys([*faces[:2], *faces[5:7]], anna),
        **dict.fromkeys(faces[3:5], ann),
    }
    assert ((await client.get(anna)).face_count, (await client.get(ann)).face_count) == (4, 2)


async def test_an_un_merge_reaches_through_a_later_merge(
    client: PersonsClient, base: Foundation, seeded: SeededFaces
) -> None:
    """A into B, then B into C: A's faces went along, and come back to A; the rest stays with C."""
    faces = ids(seeded.face_ids)
    a, b, c = [await client.create(name) for name in ("A", "B", "C")]
    await client.assign_all(faces[:2], a)
    await client.assign_all(faces[2:4], b)
    await client.assign_all(faces[4:6], c)
    first = await client.merge(b, a)
    await client.merge(c, b)
    assert (await client.get(a)).merged_into == c, "the chain is answered with its end"
    undone = await client.undo(first.change_id)
    assert not undone.skipped
    assert [(await client.get(person)).face_count for person in (a, b, c)] == [2, 0, 4]


async def test_a_survivor_that_is_merged_stands_for_whom_it_is_part_of(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    faces = ids(seeded.face_ids)
    a, b, c = [await client.create(name) for name in ("A", "B", "C")]
    await client.assign_all(faces[:2], c)
    await client.merge(a, b)
    merged = await client.merge(b, c)
    assert (merged.survivor.id, merged.survivor.face_count) == (a, 2)
    with pytest.raises(InvalidRequest):
        await client.merge(b, a)
    with pytest.raises(InvalidRequest):
        await client.merge(a, a)
    with pytest.raises(PreconditionFailed) as again:
        await client.merge(a, c)
    assert again.value.metadata["merged_into"] == a


async def test_different_birth_dates_have_to_be_decided(client: PersonsClient) -> None:
    one = await client.create("A", birth_date=types_pb2.Date(year=1980, month=2))
    other = await client.create("B", birth_date=types_pb2.Date(year=1981))
    exact = await client.create("C", birth_date=types_pb2.Date(year=1980, month=2, day=3))
    with pytest.raises(PreconditionFailed) as differ:
        await client.merge(one, other)
    assert differ.value.reason is Reason.BIRTH_DATES_DIFFER
    assert differ.value.metadata == {"survivor_birth_date": "1980-02", "merged_birth_date": "1981"}
    merged = await client.merge(one, exact)
    assert merged.survivor.birth_date.day == 3, "the more precise of two that fit"
    merged = await client.merge(one, other, birth_date=types_pb2.Date(year=1981))
    assert merged.survivor.birth_date == types_pb2.Date(year=1981)


async def test_a_merge_needs_the_etags_of_what_was_seen(client: PersonsClient) -> None:
    one, other = await client.create_person("A"), await client.create_person("B")
    request = persons_pb2.MergePersonsRequest(survivor_id=one.person.id, merged_id=other.person.id)
    with pytest.raises(PreconditionFailed) as missing:
        await ask(client.people.MergePersons(request))
    assert missing.value.reason is Reason.ETAG_REQUIRED
    request.survivor_etag, request.merged_etag = one.person.etag, "77"
    with pytest.raises(EtagMismatch):
        await ask(client.people.MergePersons(request))


async def test_words_that_contradict_the_merge(client: PersonsClient, base: Foundation, seeded: SeededFaces) -> None:
    """A human's assignment outlives an exclusion from the other; a machine's does not."""
    faces = ids(seeded.face_ids)
    anna, ann = await client.create("Anna"), await client.create("Ann")
    await client.assign_all(faces[:1], ann)
    await client.assign_all(faces[1:2], ann, MACHINE)
    await client.assign_all(faces[2:3], anna)
    await client.assign_all(faces[3:4], anna, MACHINE)
    for face in faces[:2]:
        await client.exclude(face, anna)
    for face in faces[2:4]:
        await client.exclude(face, ann)
    before = await read_state(base)
    merged = await client.merge(anna, ann)
    assert (merged.faces_moved, merged.faces_unassigned, merged.survivor.face_count) == (1, 2, 2)
    state = await read_state(base)
    assert {str(face) for face in state["assignments"]} == {faces[0], faces[2]}
    assert {(str(face), str(person)) for face, person in state["exclusions"]} == {(faces[1], anna), (faces[3], anna)}
    await client.undo(merged.change_id)
    assert await read_state(base) == before


async def test_a_deleted_person_frees_its_faces_and_comes_back_with_those_still_free(
    client: PersonsClient, base: Foundation, seeded: SeededFaces
) -> None:
    faces = ids(seeded.face_ids)
    anna, ben = await client.create("Anna"), await client.create("Ben")
    await client.assign_all(faces[:4], anna)
    before = await read_state(base)
    deleted = await client.delete(anna)
    assert deleted.person.HasField("delete_time")
    assert deleted.person.face_count == 0
    with pytest.raises(NotFound):
        await client.get(anna, deleted=False)
    with pytest.raises(PreconditionFailed):
        await client.assign_all(faces[5:6], anna)
    restored = await client.undelete(anna)
    assert restored.person.face_count == 4
    assert await read_state(base) == before
    with pytest.raises(AlreadyExists):
        await client.undelete(anna)
    await client.delete(anna)
    await client.assign_all(faces[:1], ben)
    assert (await client.undelete(anna)).person.face_count == 3


async def test_an_undo_can_be_undone_and_a_change_only_once(
    client: PersonsClient, base: Foundation, seeded: SeededFaces
) -> None:
    faces = ids(seeded.face_ids)
    anna, ann = await client.create("Anna"), await client.create("Ann")
    await client.assign_all(faces[:3], ann)
    merged = await client.merge(anna, ann)
    after = await read_state(base)
    undone = await client.undo(merged.change_id)
    assert undone.change.undoes == merged.change_id
    with pytest.raises(PreconditionFailed) as twice:
        await client.undo(merged.change_id)
    assert twice.value.reason is Reason.CHANGE_NOT_UNDOABLE
    assert twice.value.metadata["undone_by"] == undone.change.id
    await client.undo(undone.change.id)
    assert await read_state(base) == after
    assert (await client.undo(merged.change_id)).reverted_count == 4, "what stands again can be undone again"


async def test_an_undo_that_is_tried_changes_nothing(
    client: PersonsClient, base: Foundation, seeded: SeededFaces
) -> None:
    anna = await client.create("Anna")
    made = await client.assign_all(ids(seeded.face_ids)[:2], anna)
    before = await read_state(base)
    tried = await client.undo(made.change_id, dry_run=True)
    assert tried.reverted_count == 2
    assert not tried.HasField("change")
    assert await read_state(base) == before


async def test_undoing_an_update_reverts_only_the_fields_that_are_still_so(client: PersonsClient) -> None:
    anna = (await client.create_person("Anna")).person
    request = persons_pb2.UpdatePersonRequest(person=persons_pb2.Person(id=anna.id, name="Anja", notes="met in May"))
    first = await client.people.UpdatePerson(request)
    await client.people.UpdatePerson(
        persons_pb2.UpdatePersonRequest(person=persons_pb2.Person(id=anna.id, name="Antje"))
    )
    undone = await client.undo(first.change_id)
    assert [(item.id, item.reason) for item in undone.skipped] == [(anna.id, "CHANGED_SINCE")]
    assert "name" in undone.skipped[0].message
    person = await client.get(anna.id)
    assert (person.name, person.notes) == ("Antje", "")


async def test_undoing_the_creation_of_a_person_who_has_faces_leaves_the_person(
    client: PersonsClient, seeded: SeededFaces
) -> None:
    made = await client.create_person("Anna")
    await client.assign_all(ids(seeded.face_ids)[:2], made.person.id)
    undone = await client.undo(made.change_id)
    assert undone.reverted_count == 0
    assert not undone.HasField("change")
    assert "2 other faces" in undone.skipped[0].message
    assert not (await client.get(made.person.id)).HasField("delete_time")


async def test_a_hundred_faces_merge_in_as_many_statements_as_three(base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(320))
    deps, caller = PersonsDeps(base.clock, base.ids, base.settings.persons), Caller("test", "test")
    counts = []
    at = 0
    for size in (40, 120):
        async with base.database.transaction() as tx:
            people = [(await create_person(tx, deps, CreatePerson("default", name), caller)).person for name in "AB"]
            for person in people:
                await assign_faces(
                    tx, deps, AssignFaces("default", seeded.face_ids[at : at + size], person.person_id), caller
                )
                at += size
        one, other = people
        command = MergePersons("default", one.person_id, one.etag, other.person_id, other.etag)
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                made = await merge_persons(tx, deps, command, caller)
            async with base.database.transaction() as tx:
                await undo_change(tx, deps, Undo("default", made.change_id), caller)
        assert made.faces_moved == size
        counts.append(len(sent))
    assert counts[0] == counts[1]
    async with base.database.transaction() as tx:
        entered = await tx.scalar(
            select(func.count()).select_from(change_faces).where(change_faces.c.change_id == made.change_id)
        )
        kinds = await tx.rows(select(changes.c.kind).order_by(changes.c.sequence.desc()).limit(2))
    assert entered == 120
    assert [row.kind for row in kinds] == ["UNDONE", "PERSONS_MERGED"]


async def test_nobody_undoes_what_is_not_in_the_library(client: PersonsClient) -> None:
    with pytest.raises(NotFound):
        await client.undo(str(uuid4()))
    made = await client.create_person("Anna")
    with pytest.raises(NotFound):
        await ask(
            client.changes.UndoChange(changes_pb2.UndoChangeRequest(library_id="other", change_id=made.change_id))
        )
    assert UUID(made.change_id)


async def test_a_merge_is_not_redone_over_what_came_since(
    client: PersonsClient, base: Foundation, seeded: SeededFaces
) -> None:
    """Half a merge would leave an exclusion from a person nobody is any more, and a machine could give the face away."""
    faces = ids(seeded.face_ids)
    anna, ann = await client.create("Anna"), await client.create("Ann")
    await client.assign_all(faces[:2], ann)
    merged = await client.merge(anna, ann)
    undone = await client.undo(merged.change_id)
    excluded = await client.exclude(faces[5], ann)
    before = await read_state(base)
    again = await client.undo(undone.change.id)
    assert (again.reverted_count, [item.id for item in again.skipped]) == (0, [ann])
    assert "exclusions" in again.skipped[0].message
    assert await read_state(base) == before
    await client.undo(excluded.change_id)
    await client.assign_all(faces[6:7], ann)
    again = await client.undo(undone.change.id)
    assert (again.reverted_count, [item.id for item in again.skipped]) == (0, [ann])
    await client.unassign(faces[6])
    assert (await client.undo(undone.change.id)).reverted_count == 3
    assert (await client.get(ann)).merged_into == anna


async def test_an_earlier_merge_is_not_half_undone_after_a_later_one(client: PersonsClient) -> None:
    one, two, other = [await client.create(name) for name in ("A", "B", "M")]
    first = await client.merge(one, other)
    undone = await client.undo(first.change_id)
    redone = await client.undo(undone.change.id)
    await client.undo(redone.change.id)
    await client.merge(two, other)
    with pytest.raises(PreconditionFailed) as stale:
        await client.undo(first.change_id)
    assert stale.value.reason is Reason.CHANGE_NOT_UNDOABLE
    assert stale.value.metadata["undone_by"] == undone.change.id, "undoing the redo has undone the merge again"
    # The redo is undone as well, and the first undo stands: it cannot be taken back over the later merge.
    again = await client.undo(undone.change.id)
    assert again.reverted_count == 0
    person = await client.get(other)
    assert (person.status, person.merged_into) == (persons_pb2.PERSON_STATUS_MERGED, two)


async def test_undoing_one_exclusion_leaves_another_of_the_same_pair(
    client: PersonsClient, base: Foundation, seeded: SeededFaces
) -> None:
    face = str(seeded.face_ids[0])
    anna, ann = await client.create("Anna"), await client.create("Ann")
    await client.exclude(face, anna)
    second = await client.exclude(face, ann)
    await client.merge(anna, ann)
    undone = await client.undo(second.change_id)
    assert [(item.id, item.reason) for item in undone.skipped] == [(face, "CHANGED_SINCE")]
    with pytest.raises(PreconditionFailed) as excluded:
        await client.assign_all([face], anna)
    assert excluded.value.reason is Reason.FACE_EXCLUDED


async def test_a_merge_that_is_tried_answers_no_etag(client: PersonsClient) -> None:
    one, other = await client.create("A"), await client.create("B")
    assert (await client.merge(one, other, dry_run=True)).survivor.etag == ""
    assert (await client.merge(one, other)).survivor.etag == (await client.get(one)).etag
