"""The settler, and the queue it takes people from, against real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update

from services.persons import settler as settler_module
from services.persons.domain.assigning import AssignFaces, assign_faces
from services.persons.domain.model import PersonsDeps
from services.persons.domain.people import CreatePerson, create_person
from services.persons.domain.settling import settle_locked
from services.persons.jobs import REFRESH_PEOPLE
from services.persons.settler import Settler
from services.persons.worker import start as start_worker
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.people_queue import WaitingPerson, count_people, queue_people, take_people
from shared.db.tables_persons import persons, prototypes
from shared.db.tables_shared import jobs, people_to_settle
from shared.foundation import Foundation
from shared.jobs.model import NewJob
from shared.jobs.repository import create_job
from shared.queue.cron import measure_people
from tests.integration.conftest import Running, eventually
from tests.integration.counting import recording_statements
from tests.integration.foundations.clock import StillClock
from tests.integration.library import SeededFaces, random_vectors, seed_faces
from tests.integration.waiting import somebody_waits

MANY = 40
CALLER = Caller("test", "test", "")
DELAY = 1.0
# Past the delay, and what is added to it for faces.
LATER = 1.1


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def deps(base: Foundation, clock: StillClock) -> PersonsDeps:
    return PersonsDeps(clock, base.ids, base.settings.persons.model_copy(update={"settle_interval_s": DELAY}))


def make_settler(base: Foundation, deps: PersonsDeps) -> Settler:
    return Settler(base.database, base.listener, deps)


async def make_person(base: Foundation, deps: PersonsDeps, face_ids: Collection[UUID] = ()) -> UUID:
    async with base.database.transaction() as tx:
        made = await create_person(tx, deps, CreatePerson("default", "Ada"), CALLER)
        person_id = made.person.person_id
        if face_ids:
            await assign_faces(tx, deps, AssignFaces("default", list(face_ids), person_id), CALLER)
    return person_id


async def queue(base: Foundation, deps: PersonsDeps, *person_ids: UUID) -> None:
    async with base.database.transaction() as tx:
        await queue_people(tx, deps.clock, "default", person_ids)


async def waiting(base: Foundation) -> list[UUID]:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(people_to_settle.c.person_id).order_by(people_to_settle.c.person_id))
    return [row.person_id for row in rows]


async def count_prototypes(base: Foundation, person_id: UUID) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).where(prototypes.c.person_id == person_id))
    return found


async def spoil(base: Foundation, *person_ids: UUID) -> None:
    """Make counts wrong, so that a test sees whether somebody was settled."""
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).where(persons.c.person_id.in_(person_ids)).values(face_count=99))


async def face_count(base: Foundation, person_id: UUID) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(persons.c.face_count).where(persons.c.person_id == person_id))
    return found


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    return await seed_faces(base, random_vectors(MANY + 1), with_collections=False)


async def test_one_more_face_of_many_reads_no_embedding_and_is_settled_some_moments_later(
    base: Foundation, deps: PersonsDeps, clock: StillClock, seeded: SeededFaces
) -> None:
    # Whoever has no prototype yet gets them at once, however many faces come together.
    person_id = await make_person(base, deps, seeded.face_ids[:-1])
    most = base.settings.persons.max_prototypes
    assert (await waiting(base), await count_prototypes(base, person_id)) == ([], most)
    with recording_statements(base.database) as sent:
        async with base.database.transaction() as tx:
            await assign_faces(tx, deps, AssignFaces("default", seeded.face_ids[-1:], person_id), CALLER)
    assert not any("JOIN face_embeddings" in statement.text for statement in sent)
    async with base.database.transaction() as tx:
        found = await tx.one_or_none(select(persons).where(persons.c.person_id == person_id))
        assert found is not None
        # The count and the date that the face sets are right at once.
        assert (found.face_count, found.last_seen.date().isoformat()) == (MANY + 1, "2020-02-10")
        await tx.execute(delete(prototypes).where(prototypes.c.person_id == person_id))
    settler = make_settler(base, deps)
    # Not yet: what comes in these moments is settled with it.
    assert await settler.settle_due() == pytest.approx(1.0, abs=0.01)
    assert await count_prototypes(base, person_id) == 0
    clock.advance(LATER)
    assert await settler.settle_due() is None
    assert (await waiting(base), await count_prototypes(base, person_id)) == ([], most)


async def test_who_changes_all_the_time_is_settled_all_the_same_and_once(
    base: Foundation, deps: PersonsDeps, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[set[UUID]] = []

    async def note(tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Collection[UUID]) -> None:
        settled.append(set(person_ids))
        await settle_locked(tx, deps, library_id, person_ids)

    monkeypatch.setattr(settler_module, "settle_locked", note)
    person_id = await make_person(base, deps)
    settler = make_settler(base, deps)
    for _ in range(25):
        await queue(base, deps, person_id)
        clock.advance(0.1)
        await settler.settle_due()
    assert settled == [{person_id}, {person_id}]


async def test_who_has_very_many_faces_waits_longer(base: Foundation, deps: PersonsDeps, clock: StillClock) -> None:
    large, small = await make_person(base, deps), await make_person(base, deps)
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).where(persons.c.person_id == large).values(face_count=100_000))
    await queue(base, deps, large, small)
    clock.advance(LATER)
    assert await make_settler(base, deps).settle_due() == pytest.approx(4.9)
    assert await waiting(base) == [large]


async def test_who_is_due_waits_for_nobody_who_came_before_and_is_not(
    base: Foundation, deps: PersonsDeps, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler_module, "LOOKED_AT", 2)
    large = [await make_person(base, deps) for _ in range(3)]
    small = await make_person(base, deps)
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).where(persons.c.person_id.in_(large)).values(face_count=100_000))
    await queue(base, deps, *large)
    clock.advance(0.5)
    await queue(base, deps, small)
    clock.advance(LATER)
    # The next to be due is one of the first three, in 1 + 100,000 * 50e-6 seconds from the beginning.
    assert await make_settler(base, deps).settle_due() == pytest.approx(6.0 - 0.5 - LATER)
    assert await waiting(base) == sorted(large)


async def test_who_is_held_is_waited_for_and_nobody_else_is_held_up(
    base: Foundation, deps: PersonsDeps, clock: StillClock, seeded: SeededFaces
) -> None:
    one, other = await make_person(base, deps, seeded.face_ids[:2]), await make_person(base, deps, seeded.face_ids[2:4])
    await spoil(base, one, other)
    await queue(base, deps, one, other)
    clock.advance(LATER)
    settlers = [make_settler(base, deps) for _ in range(3)]
    async with base.database.transaction() as tx:
        await tx.execute(select(persons.c.person_id).where(persons.c.person_id == one).with_for_update(key_share=True))
        running = [asyncio.create_task(settler.settle_due()) for settler in settlers]

        async def other_is_settled() -> bool:
            return await face_count(base, other) == 2

        await eventually(other_is_settled)
        assert await face_count(base, one) == 99
    assert await asyncio.gather(*running) == [None, None, None]
    assert (await face_count(base, one), await waiting(base)) == (2, [])


async def test_what_is_queued_while_a_person_is_settled_is_not_lost(
    base: Foundation, deps: PersonsDeps, clock: StillClock
) -> None:
    """Detection queues people without holding them."""
    person_id = await make_person(base, deps)
    await queue(base, deps, person_id)
    async with base.database.transaction() as tx:
        assert await take_people(tx, [person_id]) == {person_id}
        # Another transaction changes something that this one has perhaps read already, and waits for it.
        writer = asyncio.create_task(queue(base, deps, person_id))

        await eventually(lambda: somebody_waits(base))
    await writer
    assert await waiting(base) == [person_id]
    # The other way round: a row that is being written is taken only once its change can be seen.
    async with base.database.transaction() as tx:
        await queue_people(tx, deps.clock, "default", [person_id])
        clock.advance(LATER)
        settling = asyncio.create_task(make_settler(base, deps).settle_due())
        await eventually(lambda: somebody_waits(base))
        assert await waiting(base) == [person_id]
    assert await settling is None
    assert await waiting(base) == []


async def test_one_who_cannot_be_settled_and_one_who_is_gone_hold_up_nobody(
    base: Foundation,
    deps: PersonsDeps,
    clock: StillClock,
    seeded: SeededFaces,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, bad = await make_person(base, deps, seeded.face_ids[:2]), await make_person(base, deps, seeded.face_ids[2:4])
    await spoil(base, good)

    async def fail(tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Collection[UUID]) -> None:
        if bad in person_ids:
            raise ValueError("no such vector")
        await settle_locked(tx, deps, library_id, person_ids)

    monkeypatch.setattr(settler_module, "settle_locked", fail)
    await queue(base, deps, good, bad, UUID(int=7))
    clock.advance(LATER)
    settler = make_settler(base, deps)
    pause = await settler.settle_due()
    assert pause is not None
    assert pause > settler_module.RETRY_S
    assert (await face_count(base, good), await waiting(base)) == (2, [bad])
    monkeypatch.undo()
    clock.advance(pause)
    assert await settler.settle_due() is None
    assert await waiting(base) == []


async def test_postgresql_away_is_outlived(
    base: Foundation, seeded: SeededFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = base.settings.persons.model_copy(update={"settle_interval_s": 0.05, "settle_poll_s": 0.05})
    deps = PersonsDeps(base.clock, base.ids, settings)
    person_id = await make_person(base, deps, seeded.face_ids)
    await spoil(base, person_id)
    await queue(base, deps, person_id)
    asked = 0

    async def refuse(tx: Transaction, *_: object) -> list[WaitingPerson]:
        nonlocal asked
        asked += 1
        raise ConnectionRefusedError("connection refused")

    async def tried_again() -> bool:
        return asked >= 2

    async def settled() -> bool:
        return await face_count(base, person_id) == MANY + 1 and await waiting(base) == []

    monkeypatch.setattr(settler_module, "list_waiting_people", refuse)
    running = asyncio.create_task(make_settler(base, deps).run())
    await eventually(tried_again)
    assert not await settled()
    monkeypatch.undo()
    await eventually(settled)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_job_of_the_version_before_still_brings_people_up_to_date(
    base: Foundation, deps: PersonsDeps, seeded: SeededFaces, running: Running
) -> None:
    person_id = await make_person(base, deps, seeded.face_ids[:2])
    await spoil(base, person_id)
    await running.worker(start_worker)
    async with base.database.transaction() as tx:
        job = NewJob(
            library_id="default",
            kind=REFRESH_PEOPLE,
            unit="person",
            slices=[{"person_ids": [str(person_id)]}],
            created_by="test",
            spec={},
            total=1,
        )
        await create_job(tx, job, base.ids, base.clock)

    async def done() -> bool:
        async with base.database.transaction() as tx:
            state = await tx.scalar(select(jobs.c.state).where(jobs.c.kind == REFRESH_PEOPLE))
        return state == "SUCCEEDED" and await face_count(base, person_id) == 2

    await eventually(done)


async def test_how_many_wait_can_be_seen(base: Foundation, deps: PersonsDeps, clock: StillClock) -> None:
    await queue(base, deps, UUID(int=1), UUID(int=2))
    clock.advance(30)
    await queue(base, deps, UUID(int=1), UUID(int=3))
    async with base.database.transaction() as tx:
        assert (await count_people(tx))[0] == 3
    measuring = asyncio.create_task(measure_people(base.database, clock, base.metrics))

    async def shown() -> bool:
        sample = base.metrics.registry.get_sample_value
        return (sample("kith_people_to_settle"), sample("kith_people_to_settle_seconds")) == (3.0, 30.0)

    await eventually(shown)
    measuring.cancel()
    await asyncio.gather(measuring, return_exceptions=True)
