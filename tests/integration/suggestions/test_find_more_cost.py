"""What a find-more job costs: statements and searches grow with the batches of persons, and with nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from services.suggestions.adapters.faces import IndexedFaceSearch
from services.suggestions.domain.discovering import BATCH_PERSONS, FIND_MORE, FindMore, make_finder, start_find_more
from services.suggestions.domain.model import SuggestionMethod
from services.suggestions.wiring import build_deps, build_handlers
from shared.caller import Caller
from shared.config import JobSettings
from shared.db.tables_detection import faces as face_table
from shared.db.tables_shared import job_slices
from shared.foundation import Foundation
from shared.jobs.execution import SliceExecutor
from shared.jobs.model import Job
from shared.jobs.repository import get_job
from shared.vectors.faces import FaceIndex
from tests.integration.counting import recording_statements
from tests.integration.suggestions.album import People, Person, draw_people, relay_all, seed_library
from tests.integration.suggestions.discovery import Nowhere

# So long that no heartbeat falls into a count.
PATIENT = JobSettings(lease_s=600, heartbeat_s=200)


@dataclass
class Cost:
    """Round trips."""

    statements: int = 0
    searches: int = 0


@contextmanager
def counting(base: Foundation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cost]:
    cost = Cost()
    search = base.qdrant.query_batch_points

    async def count_search(*args: Any, **kwargs: Any) -> Any:
        cost.searches += 1
        return await search(*args, **kwargs)

    with recording_statements(base.database) as sent, monkeypatch.context() as patched:
        patched.setattr(base.qdrant, "query_batch_points", count_search)
        yield cost
    cost.statements = len(sent)


async def run_job(
    base: Foundation,
    stack: AsyncExitStack,
    persons: Sequence[Person],
    monkeypatch: pytest.MonkeyPatch,
    max_per_person: int = 200,
) -> tuple[Job, Cost]:
    wanted = [each.person_id for each in persons]
    command = FindMore("default", wanted, SuggestionMethod.PROTOTYPES, max_per_person, 0.5)
    async with base.database.transaction() as tx:
        job = await start_find_more(tx, build_deps(base), command, Caller("test", "test"))
    handlers = build_handlers(base, stack)
    executor = SliceExecutor(handlers, base.database, base.clock, base.ids, PATIENT)
    with counting(base, monkeypatch) as cost:
        await executor.run_slice(job.job_id, 0)
    async with base.database.transaction() as tx:
        return await get_job(tx, "default", job.job_id), cost


async def test_statements_and_searches_grow_by_batches_of_persons_only(
    base: Foundation, people: People, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = 4, 16
    faces = await seed_library(base, draw_people(4 * BATCH_PERSONS, 2 + many))
    persons = [await people.create(f"Person {number}") for number in range(4 * BATCH_PERSONS)]
    surplus: list[UUID] = []
    for number, person in enumerate(persons):
        own = faces.face_ids[number * (2 + many) : (number + 1) * (2 + many)]
        await people.assign(person, own[:2])
        if number < BATCH_PERSONS:
            surplus += own[2 + few :]
    async with base.database.transaction() as tx:
        await tx.execute(update(face_table).where(face_table.c.face_id.in_(surplus)).values(state="IGNORED"))
    await relay_all(base)
    job, small = await run_job(base, stack, persons[:BATCH_PERSONS], monkeypatch)
    assert created(job) == few * BATCH_PERSONS
    job, large = await run_job(base, stack, persons[BATCH_PERSONS : 2 * BATCH_PERSONS], monkeypatch)
    assert created(job) == many * BATCH_PERSONS
    assert (small.statements, small.searches) == (large.statements, 1)
    _, twice = await run_job(base, stack, persons[: 2 * BATCH_PERSONS], monkeypatch)
    _, four_times = await run_job(base, stack, persons, monkeypatch)
    assert (twice.searches, four_times.searches) == (2, 4)
    per_batch = twice.statements - small.statements
    assert four_times.statements - small.statements == 3 * per_batch
    # Four of them are the finder's, the others the job's: its state and lease, progress, position.
    assert per_batch <= 8


async def test_one_person_costs_one_search_and_six_statements(
    base: Foundation, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = await seed_library(base, draw_people(3, 40))
    persons = [await people.create(f"Person {number}") for number in range(3)]
    for number, person in enumerate(persons):
        await people.assign(person, faces.face_ids[40 * number : 40 * number + 30])
    await relay_all(base)
    wanted = [persons[0].person_id]
    command = FindMore("default", wanted, SuggestionMethod.PROTOTYPES, 200, 0.5)
    search = IndexedFaceSearch(FaceIndex(base.qdrant, base.collections))
    with counting(base, monkeypatch) as cost:
        finder = await make_finder(base.database, build_deps(base), search, Nowhere(), command)
        assert finder is not None
        found = await finder.find(wanted)
        async with base.database.transaction() as tx:
            stored = await finder.store(tx, base.ids.new_uuid(), wanted, found)
    assert stored.created == 10
    assert (cost.searches, cost.statements) == (1, 6)


async def test_where_each_may_bring_many_the_search_is_done_in_parts(
    base: Foundation, people: People, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = await seed_library(base, draw_people(5, 6))
    persons = [await people.create(f"Person {number}") for number in range(5)]
    for number, person in enumerate(persons):
        await people.assign(person, faces.face_ids[6 * number : 6 * number + 3])
    await relay_all(base)
    # Two vectors a call at most.
    monkeypatch.setattr("services.suggestions.adapters.faces.HITS_PER_CALL", 2 * 5000)
    job, cost = await run_job(base, stack, persons, monkeypatch, max_per_person=5000)
    # Two persons at a time, of three prototypes each: 3 calls, 3, and 2.
    assert (created(job), cost.searches) == (15, 8)


async def test_a_slice_goes_on_from_its_checkpoint_and_counts_each_question_once(
    base: Foundation, people: People, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = await seed_library(base, draw_people(2 * BATCH_PERSONS, 4))
    persons = [await people.create(f"Person {number}") for number in range(2 * BATCH_PERSONS)]
    for number, person in enumerate(persons):
        await people.assign(person, faces.face_ids[4 * number : 4 * number + 2])
    await relay_all(base)
    command = FindMore("default", [each.person_id for each in persons], SuggestionMethod.PROTOTYPES, 200, 0.5)
    async with base.database.transaction() as tx:
        job = await start_find_more(tx, build_deps(base), command, Caller("test", "test"))
    executor = SliceExecutor(build_handlers(base, stack), base.database, base.clock, base.ids, PATIENT)
    search = base.qdrant.query_batch_points
    calls = 0

    async def fail_second(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionError("Qdrant went away")
        return await search(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(base.qdrant, "query_batch_points", fail_second)
        await executor.run_slice(job.job_id, 0)
    async with base.database.transaction() as tx:
        half = await get_job(tx, "default", job.job_id)
        await tx.execute(update(job_slices).where(job_slices.c.job_id == job.job_id).values(not_before=None))
    assert (half.done, half.state.value) == (BATCH_PERSONS, "RUNNING")
    await executor.run_slice(job.job_id, 0)
    async with base.database.transaction() as tx:
        whole = await get_job(tx, "default", job.job_id)
    assert (whole.done, whole.state.value) == (2 * BATCH_PERSONS, "SUCCEEDED")
    assert whole.kind == FIND_MORE
    assert created(whole) == 2 * 2 * BATCH_PERSONS


def created(job: Job) -> int:
    assert job.result is not None
    found: int = job.result["created"]
    return found
