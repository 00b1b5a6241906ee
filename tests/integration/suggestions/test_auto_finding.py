"""More is looked for by itself after so many yeses: once, for whom it is due, and never more often than was said."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from kith.persons.v1 import persons_pb2
from kith.suggestions.v1 import discovery_pb2 as pb
from services.suggestions.adapters.persons import RemoteAssignments
from services.suggestions.domain import auto_finding
from services.suggestions.domain.auto_finding import count_accepted
from services.suggestions.domain.bulk_reviewing import (
    Answer,
    Review,
    ReviewSuggestions,
    begin_reviews,
    finish_reviews,
)
from services.suggestions.domain.discovering import FIND_MORE
from services.suggestions.domain.model import SuggestionsDeps
from services.suggestions.repository.auto_finds import add_accepted, list_free_persons
from services.suggestions.server import start as start_suggestions
from shared.db.engine import Transaction
from shared.db.tables_persons import persons
from shared.db.tables_shared import job_slices, jobs
from shared.db.tables_suggestions import auto_finds, discovery_settings
from shared.errors import InvalidRequest
from shared.foundation import Foundation
from shared.jobs.model import JobState
from shared.jobs.repository import update_job
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running, eventually
from tests.integration.counting import recording_statements
from tests.integration.foundations.clock import StillClock
from tests.integration.library import random_vectors, seed_faces
from tests.integration.suggestions.album import People, Person, draw_people, seed_library, wait_indexed
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.conftest import Questions, Scene
from tests.integration.suggestions.discovery import wait_job
from tests.integration.suggestions.reviewing import CALLER, NO, REJECTED, YES, review, send
from tests.integration.waiting import somebody_waits


async def say(questions: Questions, after: int | None, library_id: str = "default") -> tuple[int, bool]:
    """Change the library's word; answers what holds then."""
    request = pb.UpdateDiscoverySettingsRequest(
        library_id=library_id, auto_find_more_after=after, request_id=str(uuid4())
    )
    async with translate_errors("suggestions"):
        settings = (await questions.discovery.UpdateDiscoverySettings(request)).settings
    return settings.auto_find_more_after, settings.is_default


async def heard(questions: Questions, library_id: str = "default") -> tuple[int, bool]:
    request = pb.GetDiscoverySettingsRequest(library_id=library_id)
    settings = (await questions.discovery.GetDiscoverySettings(request)).settings
    return settings.auto_find_more_after, settings.is_default


async def started(base: Foundation) -> list[tuple[UUID, str, set[UUID]]]:
    """Jobs that look for more, by time: who had them started, and for whom they look."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(
            select(jobs.c.job_id, jobs.c.created_by, job_slices.c.spec)
            .join(job_slices, job_slices.c.job_id == jobs.c.job_id)
            .where(jobs.c.kind == FIND_MORE)
            .order_by(jobs.c.job_id)
        )
    return [(row.job_id, row.created_by, {UUID(each) for each in row.spec["person_ids"]}) for row in rows]


async def counts(base: Foundation) -> dict[UUID, int]:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(auto_finds.c.person_id, auto_finds.c.accepted))
    return {row.person_id: row.accepted for row in rows}


def deps_of(base: Foundation, clock: StillClock | None = None, **settings: Any) -> SuggestionsDeps:
    changed = base.settings.suggestions.model_copy(update=settings)
    return SuggestionsDeps(clock or base.clock, base.ids, changed)


async def count(base: Foundation, deps: SuggestionsDeps, accepted: Mapping[Person, int]) -> None:
    """As an answer does."""
    by_id = {person.person_id: number for person, number in accepted.items()}
    async with base.database.transaction() as tx:
        await count_accepted(tx, deps, "default", by_id, CALLER)


async def end(base: Foundation, state: JobState) -> None:
    """Every job ends, or is put off, so."""
    for job_id, _, _ in await started(base):
        async with base.database.transaction() as tx:
            await update_job(tx, job_id, state=state.value)


async def test_enough_yeses_start_one_job_whose_questions_appear_and_a_no_is_never_asked_again(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 12))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:2])
    await say(questions, 3)
    await wait_indexed(base)
    denied, *ids = await ask(base, faces, [(row, anna, 0.9) for row in range(2, 6)])
    await questions.reject(denied)
    for each in ids[:2]:
        await questions.accept(each)
    assert await started(base) == []
    await questions.accept(ids[2])
    ((job_id, created_by, whom),) = await started(base)
    assert (created_by, whom) == ("anonymous", {anna.person_id})
    assert await counts(base) == {anna.person_id: 0}
    job = await wait_job(questions, str(job_id))
    assert job.progress.done == 1
    assert await questions.pairs() == {(face_id, anna.person_id) for face_id in faces.face_ids[6:]}
    assert (await questions.get(denied)).state == REJECTED
    assert len(await started(base)) == 1


async def test_each_library_says_for_itself_whether_and_when(
    base: Foundation, people: People, questions: Questions, scene: Scene
) -> None:
    assert await heard(questions) == (10, True)
    assert await say(questions, 0) == await heard(questions) == (0, False)
    assert await say(questions, 1, "other") == await heard(questions, "other") == (1, False)
    request = persons_pb2.CreatePersonRequest(
        library_id="other", person=persons_pb2.Person(name="Cleo"), request_id=str(uuid4())
    )
    cleo = Person(UUID((await people.persons.CreatePerson(request)).person.id), "Cleo")
    elsewhere = await seed_faces(base, random_vectors(1, 64), library_id="other")
    mine = await ask(base, scene.faces, [(row, scene.anna, 0.9) for row in range(12)])
    (theirs,) = await ask(base, elsewhere, [(0, cleo, 0.9)], library_id="other")
    await send(questions, *(review(each, YES) for each in mine[:10]))
    assert (await started(base), await counts(base)) == ([], {})
    await questions.accept(theirs, library_id="other")
    assert [whom for _, _, whom in await started(base)] == [{cleo.person_id}]
    # The server's word again, by which nothing is due yet.
    assert await say(questions, None) == await heard(questions) == (10, True)
    await questions.accept(mine[10])
    assert await counts(base) == {cleo.person_id: 0, scene.anna.person_id: 1}
    assert await say(questions, 2) == (2, False)
    await questions.accept(mine[11])
    assert [whom for _, _, whom in await started(base)] == [{cleo.person_id}, {scene.anna.person_id}]
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(discovery_settings.c.library_id, discovery_settings.c.updated_by))
    assert {row.library_id: row.updated_by for row in rows} == {"default": "anonymous", "other": "anonymous"}


@pytest.mark.parametrize("after", [-1, 1001])
async def test_what_is_no_number_of_answers_is_refused(base: Foundation, questions: Questions, after: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await say(questions, after)
    assert [each.field for each in refused.value.violations] == ["auto_find_more_after"]
    assert await heard(questions) == (10, True)


async def test_persons_who_are_due_by_one_request_share_a_job(
    base: Foundation, people: People, questions: Questions, scene: Scene
) -> None:
    cleo = await people.create("Cleo")
    await say(questions, 3)
    asked = [(row, (scene.anna, scene.bert, cleo)[row % 3], 0.9) for row in range(9)]
    ids = await ask(base, scene.faces, asked)
    said = [NO if row == 8 else YES for row in range(9)]
    answer = await send(questions, *(review(each, one) for each, one in zip(ids, said, strict=True)))
    assert not answer.failures
    ((_, _, whom),) = await started(base)
    assert whom == {scene.anna.person_id, scene.bert.person_id}
    assert await counts(base) == {scene.anna.person_id: 0, scene.bert.person_id: 0, cleo.person_id: 2}


async def test_a_yes_said_again_counts_once(base: Foundation, questions: Questions, scene: Scene) -> None:
    await say(questions, 3)
    one, two = await ask(base, scene.faces, [(row, scene.anna, 0.9) for row in range(2)])
    request_id = str(uuid4())
    for _ in range(2):
        await questions.accept(one, request_id=request_id)
        await questions.accept(one)
        await send(questions, review(one, YES), review(two, YES), request_id=str(uuid4()))
    assert await counts(base) == {scene.anna.person_id: 2}
    assert await started(base) == []


async def test_one_at_a_time_and_none_within_the_gap(base: Foundation, scene: Scene) -> None:
    clock = StillClock()
    deps = deps_of(base, clock, auto_find_more_after=2, auto_find_more_gap_s=60.0)
    await count(base, deps, {scene.anna: 2})
    assert len(await started(base)) == 1
    clock.advance(61)
    for state in (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED):
        await end(base, state)
        await count(base, deps, {scene.anna: 1})
        assert len(await started(base)) == 1, state
    # Somebody else is not held back by that.
    await count(base, deps, {scene.bert: 2})
    assert [whom for _, _, whom in await started(base)] == [{scene.anna.person_id}, {scene.bert.person_id}]
    await end(base, JobState.CANCELLED)
    await count(base, deps, {scene.anna: 1})
    assert len(await started(base)) == 3
    await end(base, JobState.FAILED)
    clock.advance(59)
    await count(base, deps, {scene.anna: 5})
    assert len(await started(base)) == 3
    clock.advance(1)
    await count(base, deps, {scene.anna: 1})
    assert len(await started(base)) == 4
    assert await counts(base) == {scene.anna.person_id: 0, scene.bert.person_id: 0}


async def test_racing_yeses_start_one_job(base: Foundation, running: Running, people: People, scene: Scene) -> None:
    # Without a worker no job ends, and without a gap nothing else keeps a second one from starting.
    eager = base.settings.suggestions.model_copy(update={"auto_find_more_after": 1, "auto_find_more_gap_s": 0.0})
    running.settings = running.settings.model_copy(update={"suggestions": eager})
    questions = Questions(base, await running.server("suggestions", start_suggestions))
    ids = await ask(base, scene.faces, [(row, scene.anna, 0.9) for row in range(12)])
    await asyncio.gather(*(questions.accept(each) for each in ids for _ in range(2)))
    ((_, _, whom),) = await started(base)
    assert whom == {scene.anna.person_id}
    assert await counts(base) == {scene.anna.person_id: 11}


async def test_racing_requests_about_the_same_persons_count_every_yes_once(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 60))
    several = [await people.create(f"Person {number}") for number in range(6)]
    await say(questions, 10)
    ids = await ask(base, faces, [(row, several[row % 6], 0.9) for row in range(60)])
    # Each request has a yes for every person, forwards or backwards.
    parts = [ids[at : at + 6][:: 1 if at % 12 else -1] for at in range(0, 60, 6)]
    answers = await asyncio.gather(*(send(questions, *(review(each, YES) for each in part)) for part in parts))
    assert [len(answer.suggestions) for answer in answers] == [6] * 10
    ((_, _, whom),) = await started(base)
    assert whom == {person.person_id for person in several}
    assert await counts(base) == dict.fromkeys(whom, 0)


async def test_whoever_counts_for_several_persons_waits_for_the_first_before_it_holds_the_second(
    base: Foundation, scene: Scene
) -> None:
    first, second = sorted((scene.anna, scene.bert), key=lambda person: person.person_id)
    async with base.database.transaction() as tx:
        await add_accepted(tx, "default", {first.person_id: 1})
        waiting = asyncio.create_task(count(base, deps_of(base), {second: 1, first: 1}))
        await eventually(lambda: somebody_waits(base))
        await add_accepted(tx, "default", {second.person_id: 1})
    await waiting
    assert await counts(base) == {first.person_id: 2, second.person_id: 2}


async def test_nothing_is_looked_for_for_whoever_is_gone(base: Foundation, people: People, scene: Scene) -> None:
    cleo = await people.create("Cleo")
    deps = deps_of(base, auto_find_more_after=1)
    async with base.database.transaction() as tx:
        for person, values in (
            (scene.bert, {"status": "MERGED", "merged_into": cleo.person_id}),
            (cleo, {"deleted_at": base.clock.now()}),
        ):
            await tx.execute(update(persons).where(persons.c.person_id == person.person_id).values(**values))
    await count(base, deps, {scene.bert: 1, cleo: 1})
    assert await started(base) == []
    await count(base, deps, {scene.anna: 1, scene.bert: 1, cleo: 1})
    assert [whom for _, _, whom in await started(base)] == [{scene.anna.person_id}]
    assert await counts(base) == {scene.anna.person_id: 0, scene.bert.person_id: 2, cleo.person_id: 2}


async def test_an_answer_stands_although_its_person_goes_at_that_moment(
    base: Foundation, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go_meanwhile(tx: Transaction, person_ids: Collection[UUID]) -> list[UUID]:
        free = await list_free_persons(tx, person_ids)
        async with base.database.transaction() as tx:
            gone = update(persons).where(persons.c.person_id == scene.bert.person_id)
            await tx.execute(gone.values(deleted_at=base.clock.now()))
        return free

    monkeypatch.setattr(auto_finding, "list_free_persons", go_meanwhile)
    deps = deps_of(base, auto_find_more_after=1)
    await count(base, deps, {scene.anna: 1, scene.bert: 1})
    assert await started(base) == []
    assert await counts(base) == {scene.anna.person_id: 1, scene.bert.person_id: 1}
    await count(base, deps, {scene.anna: 1})
    assert [whom for _, _, whom in await started(base)] == [{scene.anna.person_id}]


async def test_as_many_statements_for_sixty_persons_as_for_two(
    base: Foundation, people: People, remote: RemoteAssignments
) -> None:
    faces = await seed_library(base, draw_people(1, 124))
    several = [await people.create(f"Person {number}") for number in range(62)]
    ids = await ask(base, faces, [(row, several[row // 2], 0.9) for row in range(124)])
    deps = deps_of(base, auto_find_more_after=2)
    sent_for = []
    for part in (ids[:4], ids[4:]):
        command = ReviewSuggestions("default", [Review(UUID(each), "1", Answer.ACCEPT) for each in part], uuid4())
        refused = await begin_reviews(base.database, remote, command)
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                made = await finish_reviews(tx, deps, command, CALLER, refused)
        assert len(made.suggestions) == len(part)
        sent_for.append(len(sent))
    assert sent_for == [15, 15]
    assert [len(whom) for _, _, whom in await started(base)] == [2, 50, 10]
