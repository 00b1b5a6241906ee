"""Which faces are chosen as prototypes, of what eras, at what cost, and what Qdrant shows of it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import numpy as np
import pytest
from google.protobuf import field_mask_pb2
from sqlalchemy import update

from kith.common.v1 import types_pb2
from kith.persons.v1 import persons_pb2
from kith.persons.v1 import prototypes_pb2 as pb
from services.persons.domain.assigning import AssignFaces, assign_faces
from services.persons.domain.choosing import ChoosePrototype, choose_prototype, cover_eras
from services.persons.domain.model import PersonsDeps
from services.persons.domain.people import CreatePerson, create_person
from services.persons.server import start
from services.persons.worker import start as start_worker
from shared.caller import Caller
from shared.db.tables_detection import assets, faces
from shared.faces.eras import DatePrecision, Era, PartialDate, find_era, make_capture_date
from shared.faces.prototypes import Choice
from shared.foundation import Foundation
from tests.integration.conftest import Running, eventually
from tests.integration.counting import recording_statements
from tests.integration.foundations.vectors import read_payload
from tests.integration.library import seed_faces
from tests.integration.persons.prototypes import Prototypes, likes, seed_person


@pytest.fixture
async def kith(running: Running) -> Prototypes:
    return Prototypes(await running.server("persons", start))


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
