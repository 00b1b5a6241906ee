"""Questions that are over are closed, and long after removed; answers never are."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import select, text, update

from kith.suggestions.v1 import discovery_pb2
from services.suggestions.adapters.persons import RemoteAssignments
from services.suggestions.domain import expiring
from services.suggestions.domain.expiring import expire_batch, start_expire, start_purge
from services.suggestions.domain.reviewing import (
    AnswerSuggestion,
    begin_accept,
    begin_reject,
    finish_accept,
    finish_reject,
)
from services.suggestions.server import start as start_suggestions
from services.suggestions.wiring import build_deps
from shared.caller import Caller
from shared.db.tables_detection import faces as face_table
from shared.db.tables_shared import job_slices
from shared.db.tables_suggestions import suggestions
from shared.foundation import Foundation
from shared.rpc.channel import open_channel
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.conftest import Questions
from tests.integration.suggestions.discovery import run_slice, run_tidying, wait_job
from tests.integration.suggestions.world import World, make_world

PENDING, ACCEPTED, REJECTED, EXPIRED = "PENDING", "ACCEPTED", "REJECTED", "EXPIRED"


@pytest.fixture
async def world(base: Foundation, people: People, stack: AsyncExitStack) -> World:
    faces = await seed_library(base, draw_people(3, 4))
    return await make_world(base, people, stack, faces)


@pytest.fixture
async def answering(running: Running, people: People, base: Foundation) -> Questions:
    """A suggestions server without a worker: the tests say when a job runs."""
    return Questions(base, await running.server("suggestions", start_suggestions))


async def expire(world: World) -> int:
    job = await run_tidying(world.base, world.stack, start_expire)
    assert job.result is not None, job
    found: int = job.result["expired"]
    return found


async def purge(world: World) -> int:
    job = await run_tidying(world.base, world.stack, start_purge)
    assert job.result is not None, job
    found: int = job.result["purged"]
    return found


async def make_older(world: World, days: int, *columns: str) -> None:
    """Move times of all questions into the past."""
    async with world.base.database.transaction() as tx:
        values = {name: suggestions.c[name] - timedelta(days=days) for name in columns}
        await tx.execute(update(suggestions).values(**values))


async def test_only_questions_that_no_longer_stand_expire(base: Foundation, people: People, world: World) -> None:
    await ask(base, world.faces, [(row, world.anna, 0.9 - row / 100) for row in range(4)])
    await ask(base, world.faces, [(4, world.bert, 0.01), (5, world.cleo, 0.8)])
    await people.assign(world.bert, [world.faces.face_ids[0]])
    await people.exclude(world.anna, world.faces.face_ids[1])
    async with base.database.transaction() as tx:
        aside = face_table.c.face_id == world.faces.face_ids[2]
        await tx.execute(update(face_table).where(aside).values(state="IGNORED"))
    await world.delete(world.cleo)
    assert await expire(world) == 4
    assert await world.standing() == {
        (0, "Anna"): EXPIRED,
        (1, "Anna"): EXPIRED,
        (2, "Anna"): EXPIRED,
        (3, "Anna"): PENDING,
        (4, "Bert"): PENDING,
        (5, "Cleo"): EXPIRED,
    }
    assert await expire(world) == 0
    await world.delete(world.cleo, deleted=False)
    assert await world.follow(world.anna, world.cleo) == (0, 1, 0)
    assert (await world.standing())[5, "Cleo"] == PENDING


async def test_a_question_whose_person_was_merged_goes_on_about_the_survivor(base: Foundation, world: World) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9)])
    await world.merge(world.anna, world.bert)
    assert await expire(world) == 0
    assert await world.standing() == {(0, "Bert"): PENDING}


async def test_a_question_grows_old_from_when_it_was_last_asked(base: Foundation, world: World) -> None:
    days = base.settings.suggestions.max_age_days
    assert days == 180
    await ask(base, world.faces, [(0, world.anna, 0.9)])
    await make_older(world, days - 1, "created_at")
    assert await expire(world) == 0
    await make_older(world, 2, "created_at")
    # Found again while it is open it is the same question.
    await ask(base, world.faces, [(0, world.anna, 0.9)])
    assert await expire(world) == 1
    await ask(base, world.faces, [(0, world.anna, 0.9)])
    assert await expire(world) == 0
    await make_older(world, days + 1, "asked_at")
    assert await expire(world) == 1
    assert await world.follow(world.anna) == (0, 0, 0)
    assert await world.standing() == {(0, "Anna"): EXPIRED}


async def test_without_a_greatest_age_no_question_is_too_old(base: Foundation, world: World) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9)])
    await make_older(world, 10_000, "created_at")
    deps = build_deps(base)
    ageless = type(deps)(deps.clock, deps.ids, deps.settings.model_copy(update={"max_age_days": None}))
    async with base.database.transaction() as tx:
        assert (await expire_batch(tx, ageless, "default", None)).settled == 0
        assert (await expire_batch(tx, deps, "default", None)).settled == 1


async def test_answers_neither_expire_nor_are_removed_and_a_rejected_pair_stays_so(
    base: Foundation, answering: Questions, world: World
) -> None:
    yes, no = await ask(base, world.faces, [(0, world.anna, 0.9), (1, world.anna, 0.8)])
    await answering.accept(yes)
    await answering.reject(no)
    await make_older(world, 10_000, "created_at", "closed_at")
    assert (await expire(world), await purge(world)) == (0, 0)
    await ask(base, world.faces, [(1, world.anna, 0.9)])
    assert await world.standing() == {(0, "Anna"): ACCEPTED, (1, "Anna"): REJECTED}


async def test_an_answer_that_is_being_given_stands_though_the_question_expires(
    base: Foundation, people: People, running: Running, world: World, stack: AsyncExitStack
) -> None:
    yes, no = await ask(base, world.faces, [(0, world.anna, 0.9), (1, world.anna, 0.8)])
    channel = open_channel(running.settings.services.persons, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(channel.close)
    persons, deps, caller = RemoteAssignments(channel), build_deps(base), Caller("anna", "test")
    accept, reject = (AnswerSuggestion("default", UUID(each)) for each in (yes, no))
    accepting = await begin_accept(base.database, persons, accept)
    rejecting = await begin_reject(base.database, persons, reject)
    assert await expire(world) == 2
    async with base.database.transaction() as tx:
        await finish_accept(tx, deps, accept, caller, accepting)
        await finish_reject(tx, deps, reject, caller, rejecting)
    assert await world.standing() == {(0, "Anna"): ACCEPTED, (1, "Anna"): REJECTED}


async def test_what_expired_long_ago_is_removed_and_what_may_come_back_is_kept(base: Foundation, world: World) -> None:
    await ask(
        base, world.faces, [(0, world.anna, 0.9), (1, world.bert, 0.9), (2, world.bert, 0.9), (3, world.cleo, 0.9)]
    )
    await world.delete(world.cleo)
    await make_older(world, 200, "created_at")
    async with base.database.transaction() as tx:
        recent = suggestions.c.face_id.in_([world.faces.face_ids[row] for row in (2, 3)])
        await tx.execute(update(suggestions).where(recent).values(created_at=base.clock.now()))
    assert await expire(world) == 3
    assert await purge(world) == 0
    await make_older(world, base.settings.suggestions.keep_expired_days + 1, "closed_at")
    assert await purge(world) == 2
    assert await world.standing() == {(2, "Bert"): PENDING, (3, "Cleo"): EXPIRED}
    await world.delete(world.cleo, deleted=False)
    assert await world.follow(world.cleo) == (0, 1, 0)


async def test_rows_without_a_face_are_removed_whatever_their_state(base: Foundation, world: World) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9), (1, world.anna, 0.9)])
    async with base.database.transaction() as tx:
        # As a dump that was loaded without its foreign keys.
        await tx.execute(text("SET LOCAL session_replication_role = replica"))
        await tx.execute(
            update(suggestions)
            .where(suggestions.c.face_id == world.faces.face_ids[1])
            .values(face_id=base.ids.new_uuid(), state=REJECTED)
        )
    assert await purge(world) == 1
    assert await world.standing() == {(0, "Anna"): PENDING}


async def test_the_jobs_go_on_from_their_checkpoint_at_the_same_cost_for_every_batch(
    base: Foundation, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiring, "BATCH_QUESTIONS", 2)
    await ask(base, world.faces, [(row, world.anna, 0.9) for row in range(5)])
    await make_older(world, 200, "created_at")
    async with base.database.transaction() as tx:
        job = await start_expire(tx, build_deps(base), "default", Caller("test", "test"))
        first = await expire_batch(tx, build_deps(base), "default", None)
        await tx.execute(
            update(job_slices)
            .where(job_slices.c.job_id == job.job_id)
            .values(checkpoint={"after": str(first.last), "expired": first.settled})
        )
    assert (first.looked_at, first.settled, job.total) == (2, 2, 5)
    ended = await run_slice(base, world.stack, job)
    assert (ended.result, ended.done) == ({"expired": 5}, 3)
    await ask(base, world.faces, [(row, world.bert, 0.9) for row in range(6)])
    with recording_statements(base.database) as small:
        async with base.database.transaction() as tx:
            await expire_batch(tx, build_deps(base), "default", None)
    monkeypatch.setattr(expiring, "BATCH_QUESTIONS", 500)
    with recording_statements(base.database) as large:
        async with base.database.transaction() as tx:
            assert (await expire_batch(tx, build_deps(base), "default", None)).looked_at == 6
    assert len(small) == len(large) == 5


async def test_through_the_service_a_retry_is_the_same_job(
    base: Foundation, people: People, questions: Questions, world: World
) -> None:
    await ask(base, world.faces, [(0, world.anna, 0.9), (1, world.anna, 0.8)])
    await people.assign(world.bert, [world.faces.face_ids[0]])
    request_id = str(base.ids.new_uuid())
    request = discovery_pb2.ExpireSuggestionsRequest(request_id=request_id)
    jobs = {(await questions.discovery.ExpireSuggestions(request)).job.id for _ in range(2)}
    assert len(jobs) == 1
    assert MessageToDict((await wait_job(questions, jobs.pop())).result) == {"expired": 1}
    begun = await questions.discovery.PurgeOrphanedSuggestions(discovery_pb2.PurgeOrphanedSuggestionsRequest())
    assert MessageToDict((await wait_job(questions, begun.job.id)).result) == {"purged": 0}
    async with base.database.transaction() as tx:
        assert len(await tx.rows(select(suggestions.c.suggestion_id))) == 2
