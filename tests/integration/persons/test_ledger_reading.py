"""ListChanges, GetChange and ListChangeFaces over real gRPC and PostgreSQL."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import insert

from kith.persons.v1 import assignments_pb2, changes_pb2, persons_pb2, prototypes_pb2
from services.persons.domain.model import ChangeKind
from services.persons.repository.ledger_pages import ChangeFilter, get_change, list_change_faces, list_changes
from services.persons.repository.ledger_positions import number_changes
from services.persons.server import start
from shared.db.pagination import read_page_request
from shared.db.tables_persons import change_exclusions, change_faces
from shared.errors import InvalidRequest, NotFound, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.persons.reading import LedgerReader, enter_change, enter_changes


@pytest.fixture
async def ledger(running: Running) -> LedgerReader:
    return LedgerReader(await running.server("persons", start))


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(4), with_collections=False)


async def test_what_was_done_is_told_newest_first(ledger: LedgerReader, seeded: SeededFaces) -> None:
    anna = await ledger.create_person("Anna")
    request_id = str(uuid4())
    given = await ledger.assign(seeded.face_ids[0], anna.person.id, reason="the hat", request_id=request_id)
    birth = persons_pb2.Person(id=anna.person.id, notes="aunt")
    updated = await ledger.people.UpdatePerson(persons_pb2.UpdatePersonRequest(person=birth))
    found = (await ledger.page()).changes
    assert [change.id for change in found] == [updated.change_id, given.change_id, anna.change_id]
    assert [change.kind for change in found] == [
        changes_pb2.CHANGE_KIND_PERSON_UPDATED,
        changes_pb2.CHANGE_KIND_FACES_ASSIGNED,
        changes_pb2.CHANGE_KIND_PERSON_CREATED,
    ]
    assert all(list(change.person_ids) == [anna.person.id] for change in found)
    assert len({change.cursor for change in found} - {""}) == 3
    assignment = found[1]
    assert (assignment.actor, assignment.reason, assignment.rpc) == (
        "anonymous",
        "the hat",
        "kith.persons.v1.AssignFace",
    )
    assert assignment.request_id == request_id
    assert (list(assignment.face_ids), assignment.face_count) == ([str(seeded.face_ids[0])], 1)
    before, after = MessageToDict(found[0].before), MessageToDict(found[0].after)
    assert before["persons"][anna.person.id]["notes"] == ""
    assert after["persons"][anna.person.id]["notes"] == "aunt"
    for change in found:
        assert await ledger.get_change(change.id) == change


async def test_changes_are_found_by_person_face_kind_and_actor(
    ledger: LedgerReader, seeded: SeededFaces, base: Foundation
) -> None:
    anna, bert = await ledger.create_person("Anna"), await ledger.create_person("Bert")
    one, two = (str(face_id) for face_id in seeded.face_ids[:2])
    assigned = (await ledger.assign(seeded.face_ids[0], anna.person.id)).change_id
    excluded = (
        await ledger.assignments.ExcludeFace(assignments_pb2.ExcludeFaceRequest(face_id=two, person_id=bert.person.id))
    ).change_id
    (other,) = await enter_changes(base, 1, actor="the other")

    assert await ledger.ids(person_id=anna.person.id) == [assigned, anna.change_id]
    assert await ledger.ids(face_id=one) == [assigned]
    assert await ledger.ids(face_id=two) == [excluded]
    assert await ledger.ids(face_id=str(seeded.face_ids[2])) == []
    created = changes_pb2.CHANGE_KIND_PERSON_CREATED
    assert await ledger.ids(kinds=[created]) == [bert.change_id, anna.change_id]
    assert await ledger.ids(kinds=[created, changes_pb2.CHANGE_KIND_FACE_EXCLUDED, created]) == [
        excluded,
        bert.change_id,
        anna.change_id,
    ]
    assert await ledger.ids(actor="the other") == [other]
    assert await ledger.ids(person_id=bert.person.id, kinds=[created], actor="anonymous") == [bert.change_id]
    assert await ledger.ids(face_id=one, person_id=bert.person.id) == []


async def test_pages_skip_and_repeat_none_while_changes_are_made(ledger: LedgerReader, base: Foundation) -> None:
    known = await enter_changes(base, 7)
    seen: list[str] = []
    token = ""
    while True:
        answer = await ledger.page(page_size=2, page_token=token)
        seen += [change.id for change in answer.changes]
        token = answer.next_page_token
        if not token:
            break
        await enter_changes(base, 1)
    assert (len(seen), set(seen)) == (7, set(known))
    first = await ledger.page(page_size=2)
    with pytest.raises(InvalidRequest) as refused:
        await ledger.page(page_size=2, page_token=first.next_page_token, actor="anonymous")
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_another_librarys_change_is_not_found(ledger: LedgerReader) -> None:
    other = (await ledger.create_person("Anna", library_id="other")).change_id
    assert await ledger.ids() == []
    with pytest.raises(NotFound):
        await ledger.get_change(other)
    with pytest.raises(NotFound):
        async with translate_errors("persons"):
            await ledger.changes.ListChangeFaces(changes_pb2.ListChangeFacesRequest(change_id=other))
    assert (await ledger.get_change(other, library_id="other")).library_id == "other"


async def test_an_undo_and_what_it_undid_name_each_other(ledger: LedgerReader) -> None:
    created = (await ledger.create_person("Anna")).change_id
    undo = (await ledger.changes.UndoChange(changes_pb2.UndoChangeRequest(change_id=created))).change
    found = await ledger.get_change(created)
    assert (found.undone_by, found.undoes) == (undo.id, "")
    found = await ledger.get_change(undo.id)
    assert (found.kind, found.undone_by, found.undoes) == (changes_pb2.CHANGE_KIND_UNDONE, "", created)
    assert await ledger.ids() == [undo.id, created]


async def test_a_change_shows_its_first_faces_and_counts_all(ledger: LedgerReader, base: Foundation) -> None:
    face_ids = [uuid4() for _ in range(700)]
    (change_id,) = await enter_changes(base, 1, face_ids=face_ids)
    found = await ledger.get_change(change_id)
    assert (list(found.face_ids), found.face_count) == ([str(face_id) for face_id in face_ids[:500]], 700)


async def test_what_a_change_did_to_each_face_is_listed_by_face(ledger: LedgerReader, base: Foundation) -> None:
    """Moved, excluded, both, and excluded no more: at every page size the same, in order."""
    anna, bert, cleo = (UUID(int=number) for number in (1, 2, 3))
    face_ids = [UUID(int=number) for number in range(10, 16)]
    now = base.clock.now()
    async with base.database.transaction() as tx:
        change_id = await enter_change(base, tx)
        beside = await enter_change(base, tx)
        gone: dict[str, Any] = {"before_person": None, "before_source": None, "before_confidence": None}
        held = {"before_person": anna, "before_source": "MACHINE", "before_confidence": 0.75}
        to_bert = {"after_person": bert, "after_source": "HUMAN", "after_confidence": 1.0}
        to_none: dict[str, Any] = {"after_person": None, "after_source": None, "after_confidence": None}
        choice = {"before_choice": "PINNED", "after_choice": None}
        await tx.execute(
            insert(change_faces),
            [
                {"change_id": change_id, "face_id": face_ids[0], **gone, **to_bert, "before_choice": None}
                | {"after_choice": "CHOSEN"},
                {"change_id": change_id, "face_id": face_ids[2], **held, **to_bert, **choice},
                {"change_id": change_id, "face_id": face_ids[4], **held, **to_none, **choice},
                {"change_id": beside, "face_id": face_ids[1], **held, **to_none, **choice},
            ],
        )
        pairs = [(1, anna, True), (1, bert, False), (2, cleo, True), (2, anna, True), (3, anna, False), (5, bert, True)]
        await tx.execute(
            insert(change_exclusions),
            [
                {
                    "change_id": change_id,
                    "face_id": face_ids[face],
                    "person_id": person_id,
                    "exclusion_id": uuid4(),
                    "made": made,
                    "created_by": "somebody",
                    "created_at": now,
                }
                for face, person_id, made in pairs
            ],
        )
    found = await ledger.faces(str(change_id))
    assert [face.face_id for face in found] == [str(face_id) for face_id in face_ids]
    assert [face.HasField("before") for face in found] == [False, False, True, False, True, False]
    assert [face.HasField("after") for face in found] == [True, False, True, False, False, False]
    assert found[0].after.prototype_choice == prototypes_pb2.PROTOTYPE_CHOICE_CHOSEN
    assert found[2].before == changes_pb2.FaceHold(
        person_id=str(anna),
        source=assignments_pb2.ASSIGNMENT_SOURCE_MACHINE,
        confidence=0.75,
        prototype_choice=prototypes_pb2.PROTOTYPE_CHOICE_PINNED,
    )
    assert found[2].after == changes_pb2.FaceHold(
        person_id=str(bert), source=assignments_pb2.ASSIGNMENT_SOURCE_HUMAN, confidence=1
    )
    assert [list(face.excluded_from) for face in found] == [
        [],
        [str(anna)],
        [str(anna), str(cleo)],
        [],
        [],
        [str(bert)],
    ]
    assert [list(face.allowed_again) for face in found] == [[], [str(bert)], [], [str(anna)], [], []]
    for page_size in range(1, 7):
        assert await ledger.faces(str(change_id), page_size) == found


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"person_id": "anna"}, "person_id"),
        ({"face_id": "1"}, "face_id"),
        ({"kinds": [changes_pb2.CHANGE_KIND_UNDONE, 77]}, "kinds[1]"),
        ({"kinds": [changes_pb2.CHANGE_KIND_UNSPECIFIED]}, "kinds[0]"),
        ({"kinds": [changes_pb2.CHANGE_KIND_UNDONE] * 101}, "kinds"),
        ({"actor": "a" * 201}, "actor"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"library_id": "/"}, "library_id"),
    ],
)
async def test_a_wrong_field_is_refused_by_name(ledger: LedgerReader, fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await ledger.page(**fields)
    assert [violation.field for violation in refused.value.violations][:1] == [wrong]


async def test_a_page_costs_the_same_statements_whatever_the_ledger_holds(base: Foundation) -> None:
    page = read_page_request(0, "", default=50, maximum=500, filters=())
    counts = []
    for size in (1, 120):
        (change_id, *_) = await enter_changes(base, size)
        where = ChangeFilter(person_id=uuid4(), face_id=uuid4(), kinds=(ChangeKind.UNDONE,), actor="nobody")
        await number_changes(base.database, "default")
        with recording_statements(base.database) as listing:
            await number_changes(base.database, "default")
            async with base.database.transaction() as tx:
                await list_changes(tx, "default", page, where)
        with recording_statements(base.database) as faces:
            async with base.database.transaction() as tx:
                await get_change(tx, "default", UUID(change_id))
                await list_change_faces(tx, UUID(change_id), page)
        counts.append((len(listing), len(faces)))
    assert counts == [(2, 2), (2, 2)]
    await enter_changes(base, 50)
    with recording_statements(base.database) as numbering:
        await number_changes(base.database, "default")
    assert len(numbering) == 3
