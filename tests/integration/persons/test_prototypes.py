"""PrototypeService over real gRPC and PostgreSQL: a human's word, eras, what is chosen, and what Qdrant shows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import numpy as np
import pytest
from google.protobuf import field_mask_pb2
from numpy.typing import NDArray
from sqlalchemy import func, select, update

from kith.common.v1 import types_pb2
from kith.persons.v1 import changes_pb2, persons_pb2
from kith.persons.v1 import prototypes_pb2 as pb
from services.persons.domain.assigning import AssignFaces, assign_faces
from services.persons.domain.choosing import ChoosePrototype, choose_prototype, cover_eras
from services.persons.domain.model import PersonsDeps
from services.persons.domain.people import CreatePerson, create_person
from services.persons.server import start
from services.persons.worker import start as start_worker
from shared.caller import Caller
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments, changes, prototypes
from shared.errors import KithError, NotFound, PreconditionFailed, Reason
from shared.faces.embeddings import normalise
from shared.faces.eras import DatePrecision, Era, PartialDate, find_era, make_capture_date
from shared.faces.prototypes import Choice
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running, eventually
from tests.integration.counting import recording_statements
from tests.integration.foundations.vectors import read_payload
from tests.integration.library import SeededFaces, seed_faces
from tests.integration.persons.ledger import Ledger, read_state


class Prototypes(Ledger):
    """The persons server, with short words for PrototypeService."""

    async def list(self, person_id: str) -> list[pb.Prototype]:
        return list((await self.prototypes.ListPrototypes(pb.ListPrototypesRequest(person_id=person_id))).prototypes)

    async def find(self, person_id: str, face_id: object) -> pb.Prototype | None:
        return next((row for row in await self.list(person_id) if row.face_id == str(face_id)), None)

    async def choose(self, face_id: object, request_id: str = "") -> pb.CreatePrototypeResponse:
        async with translate_errors("persons"):
            request = pb.CreatePrototypeRequest(face_id=str(face_id), request_id=request_id)
            return await self.prototypes.CreatePrototype(request)

    async def refuse(self, face_id: object) -> pb.DeletePrototypeResponse:
        async with translate_errors("persons"):
            return await self.prototypes.DeletePrototype(pb.DeletePrototypeRequest(face_id=str(face_id)))

    async def pin(self, face_id: object) -> pb.PinPrototypeResponse:
        async with translate_errors("persons"):
            return await self.prototypes.PinPrototype(pb.PinPrototypeRequest(face_id=str(face_id)))

    async def unpin(self, face_id: object) -> pb.UnpinPrototypeResponse:
        async with translate_errors("persons"):
            return await self.prototypes.UnpinPrototype(pb.UnpinPrototypeRequest(face_id=str(face_id)))

    async def recompute(self, person_id: str) -> pb.RecomputePrototypesResponse:
        async with translate_errors("persons"):
            return await self.prototypes.RecomputePrototypes(pb.RecomputePrototypesRequest(person_id=person_id))

    async def coverage(self, person_id: str) -> dict[int, tuple[int, int, bool]]:
        async with translate_errors("persons"):
            answer = await self.prototypes.GetEraCoverage(pb.GetEraCoverageRequest(person_id=person_id))
        assert len({row.era for row in answer.eras}) == len(answer.eras)
        return {row.era: (row.face_count, row.prototype_count, row.pinned) for row in answer.eras}


@pytest.fixture
async def kith(running: Running) -> Prototypes:
    return Prototypes(await running.server("persons", start))


def likes(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Faces of one person: (count, 32), each different, all alike."""
    random = np.random.default_rng(seed)
    return normalise(random.standard_normal(32) + 0.7 * random.standard_normal((count, 32)))


async def seed_person(
    base: Foundation,
    kith: Prototypes,
    count: int,
    *,
    qualities: Sequence[float] | None = None,
    born: int = 0,
    moments: Sequence[datetime] = (),
) -> tuple[str, SeededFaces]:
    """A person with ``count`` faces in photos a day apart from 1 January 2020, the first ones at ``moments``; born in the
    middle of a year, if in any.
    """
    seeded = await seed_faces(base, likes(count), qualities=qualities)
    async with base.database.transaction() as tx:
        for asset_id, moment in zip(seeded.asset_ids, moments, strict=False):
            await tx.execute(update(assets).where(assets.c.asset_id == asset_id).values(captured_at=moment))
    date = types_pb2.Date(year=born, month=7, day=1) if born else None
    person = (await kith.create("Ada", birth_date=date)).person
    await kith.assign(seeded.face_ids, person.id)
    return person.id, seeded


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
    await kith.assign([best], person_id)
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
    other = (await kith.create("Bert")).person
    await kith.pin(seeded.face_ids[0])
    await kith.merge(other.id, person_id)
    assert [row.face_id for row in await kith.list(other.id) if row.pinned] == [str(seeded.face_ids[0])]
    assert await kith.list(person_id) == []
    await kith.delete(other.id)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(prototypes)) == 0


async def test_what_is_said_of_somebody_with_many_faces_is_right_at_once(kith: Prototypes, base: Foundation) -> None:
    """With no worker to settle anything."""
    person_id, seeded = await seed_person(base, kith, 60, born=2000)
    survivor, _ = await seed_person(base, kith, 2)
    cover = str(seeded.face_ids[7])
    updated = await kith.people.UpdatePerson(
        persons_pb2.UpdatePersonRequest(
            person=persons_pb2.Person(id=person_id, cover_face_id=cover),
            update_mask=field_mask_pb2.FieldMask(paths=["cover_face_id"]),
        )
    )
    assert updated.person.cover_face_id == cover
    # The birth date comes along, and with it eras: counting must not be done twice.
    merged = await kith.merge(survivor, person_id)
    assert (merged.survivor.face_count, merged.survivor.birth_date.year) == (62, 2000)
    await kith.undo(merged.change_id)
    assert [(await kith.get(name)).face_count for name in (survivor, person_id)] == [2, 60]
    assert (await kith.choose(seeded.face_ids[9])).prototype.era == types_pb2.ERA_TEEN


async def test_of_a_burst_one_face_stands_for_the_person(kith: Prototypes, base: Foundation) -> None:
    burst = [datetime(2021, 5, 1, 12, tzinfo=UTC) + timedelta(seconds=second) for second in range(3)]
    person_id, seeded = await seed_person(base, kith, 5, qualities=[0.7, 0.8, 0.75, 0.6, 0.6], moments=burst)
    async with base.database.transaction() as tx:
        # The first three differ in one bit, the fourth in many; in the third the person stands elsewhere.
        for asset_id, dhash in zip(seeded.asset_ids, (-1, -2, -1, 0), strict=False):
            await tx.execute(update(assets).where(assets.c.asset_id == asset_id).values(difference_hash=dhash))
        await tx.execute(update(faces).where(faces.c.face_id == seeded.face_ids[2]).values(box_x=600.0))
    chosen = {UUID(row.face_id) for row in (await kith.recompute(person_id)).prototypes}
    assert chosen == set(seeded.face_ids[1:])


async def test_a_face_that_looks_away_is_not_the_best(kith: Prototypes, base: Foundation) -> None:
    person_id, seeded = await seed_person(base, kith, 4, qualities=[0.85, 0.8, 0.3, 0.3])
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == seeded.face_ids[0]).values(yaw=60.0))
    roles = {UUID(row.face_id): row.role for row in (await kith.recompute(person_id)).prototypes}
    assert roles[seeded.face_ids[1]] == pb.PROTOTYPE_ROLE_PRIMARY


async def test_an_era_of_poor_photos_is_not_passed_over_among_many_good_ones(
    kith: Prototypes, base: Foundation
) -> None:
    person_id, seeded = await seed_person(
        base, kith, 260, qualities=[0.3] + [0.9] * 259, born=2000, moments=[datetime(2004, 6, 1, tzinfo=UTC)]
    )
    recomputed = (await kith.recompute(person_id)).prototypes
    (child,) = [row for row in recomputed if row.era == types_pb2.ERA_INFANT]
    assert (child.face_id, child.role) == (str(seeded.face_ids[0]), pb.PROTOTYPE_ROLE_TEMPORAL)
    # Capped: of the other era at most four.
    assert sum(row.era == types_pb2.ERA_TEEN for row in recomputed) == 4


@pytest.mark.parametrize(
    "born", [PartialDate(date(2000, 2, 29)), PartialDate(date(2000, 2, 1), DatePrecision.MONTH), None], ids=str
)
async def test_eras_in_postgresql_are_those_of_the_kernel(base: Foundation, born: PartialDate | None) -> None:
    random = np.random.default_rng(5)
    deps = PersonsDeps(base.clock, base.ids, base.settings.persons)
    seeded = await seed_faces(base, likes(120))
    first = datetime(1999, 6, 1, 23, 30, tzinfo=UTC)
    told: Counter[Era | None] = Counter()
    caller = Caller("test", "test", "")
    async with base.database.transaction() as tx:
        for asset_id, days in zip(seeded.asset_ids, random.integers(0, 366 * 22, 120), strict=True):
            moment, precision = (
                first + timedelta(days=int(days)),
                str(random.choice(["SECOND", "DAY", "MONTH", "YEAR"])),
            )
            dated = {"captured_at": moment, "captured_precision": precision}
            await tx.execute(update(assets).where(assets.c.asset_id == asset_id).values(dated))
            told[find_era(born, make_capture_date(moment, precision))] += 1
        person = (await create_person(tx, deps, CreatePerson("default", "Ada", birth_date=born), caller)).person
        await assign_faces(tx, deps, AssignFaces("default", seeded.face_ids, person.person_id), caller)
        covered = await cover_eras(tx, "default", person.person_id)
    assert {row.era: row.faces for row in covered if row.faces} == told
    assert [row.era for row in covered] == [*Era, None]


async def test_statements_do_not_grow_with_faces(kith: Prototypes, base: Foundation) -> None:
    deps = PersonsDeps(base.clock, base.ids, base.settings.persons)
    counts = []
    for count in (60, 150):
        _, seeded = await seed_person(base, kith, count)
        await kith.pin(seeded.face_ids[0])
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                command = ChoosePrototype("default", seeded.face_ids[1], Choice.PINNED)
                made = await choose_prototype(tx, deps, command, Caller("test", "test", ""))
        assert made.prototype is not None
        assert made.prototype.pinned
        # Points are queued only if a face became one or ceased to be one.
        counts.append(
            sum(each.executions for each in sent if "pg_notify" not in each.text and "outbox" not in each.text)
        )
    assert counts[0] == counts[1]


async def test_what_qdrant_shows_follows_within_moments(kith: Prototypes, base: Foundation, running: Running) -> None:
    _, seeded = await seed_person(base, kith, 3, qualities=[0.9, 0.8, 0.05])
    await running.worker(start_worker)
    poor = seeded.face_ids[2]

    async def shows(flag: bool) -> bool:
        payload = await read_payload(base, poor)
        return payload is not None and payload["prototype"] is flag

    await eventually(lambda: shows(False))
    await kith.pin(poor)
    await eventually(lambda: shows(True))
    await kith.refuse(poor)
    await eventually(lambda: shows(False))
