"""Replay protection, over real transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text

from kith.jobs.v1 import jobs_pb2
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.idempotency import count_answers_about, delete_expired_answers, forget_answers_about
from shared.db.tables_shared import idempotency_keys
from shared.errors import AnswerForgotten, Code, InvalidRequest, Reason
from shared.foundation import Foundation
from shared.rpc.ambient import acting_as
from shared.rpc.mutation import Mutations
from shared.rpc.principal import Principal, Verb
from tests.integration.foundations.clock import StillClock

DAY_S = 24 * 3600


class Counter:
    """Work that leaves a row each time it is done."""

    def __init__(self, base: Foundation, clock: StillClock) -> None:
        self._base = base
        self.mutations = Mutations(base.database, clock)

    async def work(self, tx: Transaction, _caller: Caller) -> jobs_pb2.CancelJobResponse:
        await tx.execute(text("INSERT INTO test_work VALUES (1)"))
        done = await tx.scalar(text("SELECT count(*) FROM test_work"))
        return jobs_pb2.CancelJobResponse(job=jobs_pb2.Job(revision=done))

    async def call(self, request: jobs_pb2.CancelJobRequest) -> int:
        answer = await self.mutations.run(request, jobs_pb2.CancelJobResponse, self.work)
        return answer.job.revision

    async def done(self) -> int:
        async with self._base.database.transaction() as tx:
            found: int = await tx.scalar(text("SELECT count(*) FROM test_work"))
        return found


@pytest.fixture
async def counter(base: Foundation, clock: StillClock) -> AsyncIterator[Counter]:
    async with base.database.transaction() as tx:
        await tx.execute(text("CREATE TABLE test_work (one integer)"))
    with acting_as(Principal("tester", None, frozenset(Verb))):
        yield Counter(base, clock)


def make_request(**fields: str) -> jobs_pb2.CancelJobRequest:
    return jobs_pb2.CancelJobRequest(**{"request_id": str(uuid4()), "job_id": "j", **fields})


async def test_of_many_calls_at_once_one_is_done_and_all_are_answered_alike(counter: Counter) -> None:
    request = make_request()
    assert await asyncio.gather(*(counter.call(request) for _ in range(8))) == [1] * 8
    assert await counter.done() == 1


async def test_calls_without_an_id_are_done_each_time(counter: Counter) -> None:
    request = make_request(request_id="")
    assert [await counter.call(request) for _ in range(3)] == [1, 2, 3]


async def test_another_request_under_the_same_id_is_refused(counter: Counter) -> None:
    request = make_request()
    await counter.call(request)
    with pytest.raises(InvalidRequest) as refused:
        await counter.call(make_request(request_id=request.request_id, job_id="another"))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert refused.value.metadata == {"request_id": request.request_id}
    # In another library it is another request.
    await counter.call(make_request(request_id=request.request_id, library_id="other"))
    assert await counter.done() == 2


async def test_an_answer_is_kept_for_a_day(counter: Counter, clock: StillClock, base: Foundation) -> None:
    request = make_request()
    assert await counter.call(request) == 1
    clock.advance(DAY_S - 1)
    assert await counter.call(request) == 1
    clock.advance(2)
    assert await counter.call(request) == 2
    # The new answer took the place of the old one and is kept for a day itself.
    clock.advance(DAY_S - 1)
    assert await counter.call(request) == 2
    async with base.database.transaction() as tx:
        assert await delete_expired_answers(tx, clock) == 0
    clock.advance(2)
    async with base.database.transaction() as tx:
        assert await delete_expired_answers(tx, clock) == 1


async def test_work_that_fails_leaves_no_answer(counter: Counter, base: Foundation) -> None:
    request = make_request()

    async def fail(tx: Transaction, caller: Caller) -> jobs_pb2.CancelJobResponse:
        await counter.work(tx, caller)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await counter.mutations.run(request, jobs_pb2.CancelJobResponse, fail)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(idempotency_keys)) == 0
    assert await counter.call(request) == 1


async def test_what_goes_before_the_transaction_is_not_done_for_a_replay(counter: Counter) -> None:
    request = make_request()
    begun = 0

    async def first(_caller: Caller) -> int:
        nonlocal begun
        begun += 1
        return begun

    async def then(tx: Transaction, caller: Caller, _begun: int) -> jobs_pb2.CancelJobResponse:
        return await counter.work(tx, caller)

    for _ in range(2):
        answer = await counter.mutations.run_after(request, jobs_pb2.CancelJobResponse, first, then)
        assert answer.job.revision == 1
    assert (begun, await counter.done()) == (1, 1)


async def test_what_was_answered_about_somebody_forgotten_is_neither_told_nor_done_again(
    counter: Counter, base: Foundation, clock: StillClock
) -> None:
    who = uuid4()
    request, other = make_request(), make_request()

    async def answer_about(tx: Transaction, caller: Caller) -> jobs_pb2.CancelJobResponse:
        answer = await counter.work(tx, caller)
        answer.job.id = str(who)
        return answer

    async def never(*_: object) -> jobs_pb2.CancelJobResponse:
        raise AssertionError("done again")

    await counter.mutations.run(request, jobs_pb2.CancelJobResponse, answer_about)
    await counter.call(other)
    async with base.database.transaction() as tx:
        assert await forget_answers_about(tx, "default", [who, UUID(int=7)]) == 1
        assert await count_answers_about(tx, "default", [who]) == 0
        assert await forget_answers_about(tx, "default", [who]) == 0
    with pytest.raises(AnswerForgotten) as refused:
        await counter.mutations.run(request, jobs_pb2.CancelJobResponse, never)
    assert (refused.value.code, refused.value.reason) == (Code.NOT_FOUND, Reason.RESOURCE_NOT_FOUND)
    assert refused.value.metadata == {"resource": "person", "id": ""}
    with pytest.raises(AnswerForgotten):
        await counter.mutations.run_after(request, jobs_pb2.CancelJobResponse, never, never)
    with pytest.raises(InvalidRequest):
        await counter.call(make_request(request_id=request.request_id, job_id="another"))
    assert (await counter.call(other), await counter.done()) == (2, 2)
    # Remembered as long as the answer would have been.
    clock.advance(DAY_S + 1)
    assert await counter.call(request) == 3


async def test_an_answer_without_anything_is_an_answer(counter: Counter) -> None:
    request = make_request()

    async def work(tx: Transaction, caller: Caller) -> jobs_pb2.CancelJobResponse:
        await counter.work(tx, caller)
        return jobs_pb2.CancelJobResponse()

    for _ in range(2):
        answer = await counter.mutations.run(request, jobs_pb2.CancelJobResponse, work)
        assert answer.SerializeToString() == b""
    assert await counter.done() == 1


async def test_a_dry_run_answers_and_leaves_nothing(counter: Counter, base: Foundation) -> None:
    request = make_request()
    called: list[str] = []

    async def work(tx: Transaction, caller: Caller) -> jobs_pb2.CancelJobResponse:
        tx.after_commit(lambda: called.append("never"))
        return await counter.work(tx, caller)

    for _ in range(2):
        answer = await counter.mutations.run(request, jobs_pb2.CancelJobResponse, work, dry_run=True)
        assert answer.job.revision == 1
    assert (called, await counter.done()) == ([], 0)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(idempotency_keys)) == 0
    # The id is as good as new, and a dry run after it still does the work.
    assert await counter.call(request) == 1
    answer = await counter.mutations.run(request, jobs_pb2.CancelJobResponse, work, dry_run=True)
    assert (answer.job.revision, await counter.done()) == (2, 1)


async def test_a_dry_run_refuses_what_the_call_would(counter: Counter) -> None:
    async def fail(tx: Transaction, caller: Caller) -> jobs_pb2.CancelJobResponse:
        await counter.work(tx, caller)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await counter.mutations.run(make_request(), jobs_pb2.CancelJobResponse, fail, dry_run=True)
    with pytest.raises(InvalidRequest):
        await counter.mutations.run(
            make_request(request_id="once"), jobs_pb2.CancelJobResponse, counter.work, dry_run=True
        )
    assert await counter.done() == 0


async def test_an_id_that_is_no_uuid_is_refused(counter: Counter) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await counter.call(make_request(request_id="once"))
    assert [violation.field for violation in refused.value.violations] == ["request_id"]
    assert await counter.done() == 0
