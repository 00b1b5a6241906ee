"""PrototypeService over real gRPC and PostgreSQL: a human's word on faces, and what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from google.protobuf import field_mask_pb2
from sqlalchemy import func, select, update

from kith.common.v1 import types_pb2
from kith.persons.v1 import changes_pb2, persons_pb2
from kith.persons.v1 import prototypes_pb2 as pb
from services.persons.server import start
from shared.db.tables_detection import assets
from shared.db.tables_persons import assignments, changes, prototypes
from shared.errors import KithError, NotFound, PreconditionFailed, Reason
from shared.faces.prototypes import Choice
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.library import seed_faces
from tests.integration.persons.ledger import read_state
from tests.integration.persons.prototypes import Prototypes, likes, seed_person


@pytest.fixture
async def kith(running: Running) -> Prototypes:
    return Prototypes(await running.server("persons", start))


async def test_a_chosen_face_is_one_whatever_it_is_worth_and_a_refused_one_never(
    kith: Prototypes, base: Foundation
) -> None:
    person_id, seeded = await seed_person(base, kith, 6, qualities=[0.9, 0.8, 0.7, 0.6, 0.5, 0.05])
    best, worst = seeded.face_ids[0], seeded.face_ids[5]
    assert await kith.find(person_id, worst) is None
    before = await read_state(base)
    chosen = await kith.choose(worst)
    assert chosen.prototype.choice == pb.PROTOTYPE_CHOICE_CHOSEN
    assert chosen.prototype.role == pb.PROTOTYPE_ROLE_EXEMPLAR
    # Saying it again says nothing new.
    assert await kith.choose(worst) == pb.CreatePrototypeResponse(prototype=chosen.prototype)
    refused = await kith.refuse(best)
    assert await kith.find(person_id, best) is None
    await kith.assign_all([best], person_id)
    recomputed = await kith.recompute(person_id)
    assert recomputed.change_id == ""
    assert str(best) not in {row.face_id for row in recomputed.prototypes}
    assert (await kith.find(person_id, worst)) == chosen.prototype
    assert [row.role for row in recomputed.prototypes].count(pb.PROTOTYPE_ROLE_PRIMARY) == 1
    async with base.database.transaction() as tx:
        rows = await tx.rows(
            select(changes).where(changes.c.kind == "PROTOTYPES_CHANGED").order_by(changes.c.change_id)
        )
    assert [(str(row.change_id), row.face_ids) for row in rows] == [
        (chosen.change_id, [worst]),
        (refused.change_id, [best]),
    ]
    for change_id in (refused.change_id, chosen.change_id):
        await kith.undo(change_id)
    assert await read_state(base) == before


async def test_one_pin_of_an_era(kith: Prototypes, base: Foundation) -> None:
    person_id, seeded = await seed_person(base, kith, 6, born=2000, moments=[datetime(2010, 1, 1, tzinfo=UTC)])
    young, undated, first, second = seeded.face_ids[:4]
    async with base.database.transaction() as tx:
        await tx.execute(
            update(assets).where(assets.c.asset_id == seeded.asset_ids[1]).values(captured_precision="YEAR")
        )
    assert (await kith.pin(first)).prototype.era == types_pb2.ERA_TEEN
    assert (await kith.pin(young)).prototype.era == types_pb2.ERA_CHILD
    # In 2020 the person was nineteen and then twenty: a photo of that year is of no known era, and that is one of its own.
    assert (await kith.pin(undated)).prototype.era == types_pb2.ERA_UNSPECIFIED
    before = await read_state(base)
    pinned = await kith.pin(second)
    assert (pinned.prototype.pinned, pinned.prototype.choice) == (True, pb.PROTOTYPE_CHOICE_PINNED)
    assert {row.face_id for row in await kith.list(person_id) if row.pinned} == {
        str(face_id) for face_id in (second, young, undated)
    }
    replaced = await kith.find(person_id, first)
    assert replaced is None or replaced.choice == pb.PROTOTYPE_CHOICE_UNSPECIFIED
    assert await kith.coverage(person_id) == {
        types_pb2.ERA_INFANT: (0, 0, False),
        types_pb2.ERA_CHILD: (1, 1, True),
        types_pb2.ERA_TEEN: (4, 4, True),
        types_pb2.ERA_YOUNG_ADULT: (0, 0, False),
        types_pb2.ERA_ADULT: (0, 0, False),
        types_pb2.ERA_SENIOR: (0, 0, False),
        types_pb2.ERA_UNSPECIFIED: (1, 1, True),
    }
    # One change, of both faces, and so undone in one.
    undone = await kith.undo(pinned.change_id)
    assert undone.change.kind == changes_pb2.CHANGE_KIND_UNDONE
    assert await read_state(base) == before
    assert (await kith.unpin(first)).change_id
    assert (await kith.unpin(first)).change_id == ""
    assert not any(row.pinned for row in await kith.list(person_id) if row.era == types_pb2.ERA_TEEN)


async def test_pins_that_come_into_one_era_are_one_pin(kith: Prototypes, base: Foundation) -> None:
    person_id, seeded = await seed_person(
        base, kith, 4, qualities=[0.5, 0.9, 0.5, 0.5], born=2000, moments=[datetime(2010, 1, 1, tzinfo=UTC)]
    )
    for face_id in seeded.face_ids[:2]:
        await kith.pin(face_id)
    assert sum(row.pinned for row in await kith.list(person_id)) == 2
    await kith.people.UpdatePerson(
        persons_pb2.UpdatePersonRequest(
            person=persons_pb2.Person(id=person_id, birth_date=types_pb2.Date(year=1950)),
            update_mask=field_mask_pb2.FieldMask(paths=["birth_date"]),
        )
    )
    found = {row.face_id: row for row in await kith.list(person_id)}
    one, other = (found[str(face_id)] for face_id in seeded.face_ids[:2])
    assert one.era == other.era == types_pb2.ERA_SENIOR
    assert (one.pinned, other.pinned) == (False, True)
    assert one.choice == other.choice == pb.PROTOTYPE_CHOICE_PINNED


async def test_what_cannot_be_said(kith: Prototypes, base: Foundation) -> None:
    seeded = await seed_faces(base, likes(2))
    for say in (kith.choose, kith.refuse, kith.pin, kith.unpin):
        with pytest.raises(PreconditionFailed) as free:
            await say(seeded.face_ids[0])
        assert free.value.reason is Reason.FACE_NOT_ASSIGNED
        with pytest.raises(NotFound, match="face"):
            await say(uuid4())
        with pytest.raises(KithError) as wrong:
            await say("no id")
        assert wrong.value.violations[0].field == "face_id"
    with pytest.raises(NotFound, match="person"):
        await kith.recompute(str(uuid4()))
    with pytest.raises(NotFound, match="person"):
        await kith.coverage(str(uuid4()))


async def test_a_retry_says_it_once(kith: Prototypes, base: Foundation) -> None:
    _, seeded = await seed_person(base, kith, 2)
    request_id = str(uuid4())
    first = await kith.choose(seeded.face_ids[1], request_id)
    await kith.refuse(seeded.face_ids[1])
    assert await kith.choose(seeded.face_ids[1], request_id) == first
    async with base.database.transaction() as tx:
        word = select(assignments.c.choice).where(assignments.c.face_id == seeded.face_ids[1])
        assert await tx.scalar(word) == Choice.REFUSED.value


async def test_a_word_goes_where_the_face_goes_and_a_deleted_person_has_no_prototypes(
    kith: Prototypes, base: Foundation
) -> None:
    person_id, seeded = await seed_person(base, kith, 3)
    other = await kith.create("Bert")
    await kith.pin(seeded.face_ids[0])
    await kith.merge(other, person_id)
    assert [row.face_id for row in await kith.list(other) if row.pinned] == [str(seeded.face_ids[0])]
    assert await kith.list(person_id) == []
    await kith.delete(other)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(prototypes)) == 0
