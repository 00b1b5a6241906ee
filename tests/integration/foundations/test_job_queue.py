"""The queue of slices in Redis: a slice is in it once, and is found again whatever Redis forgets."""

from __future__ import annotations

import pytest
from arq.constants import in_progress_key_prefix

from shared.foundation import Foundation
from shared.queue.pool import open_queue
from shared.queue.worker import MARKED_S, Dispatcher
from tests.integration.foundations.conftest import StartItemsWorker
from tests.integration.foundations.items import KIND, SERVICE, ItemsHandler, start_items_job, stored_items
from tests.integration.foundations.working import Gate, ends

pytestmark = pytest.mark.usefixtures("items_table")


def make_dispatcher(base: Foundation) -> Dispatcher:
    return Dispatcher(SERVICE, (KIND,), base.database, base.listener, base.clock, base.settings.jobs)


async def test_a_turn_whose_worker_died_before_the_claim_is_taken_again(
    base: Foundation, worker: StartItemsWorker
) -> None:
    job_id = await start_items_job(base, 2)
    queue = await open_queue(base.settings.redis, SERVICE)
    try:
        dispatcher = make_dispatcher(base)
        assert await dispatcher.dispatch(queue) == 1
        mark = f"{in_progress_key_prefix}{job_id}:0:0"
        # Somebody took it just now: it is left alone.
        await queue.psetex(mark, int(MARKED_S * 1000), b"1")
        assert await dispatcher.dispatch(queue) == 0
        assert await queue.exists(mark)
        # As it looks one lease later, if that worker was killed before it could claim.
        await queue.psetex(mark, int((MARKED_S - base.settings.jobs.lease_s - 1) * 1000), b"1")
        await worker(ItemsHandler())
        await ends(base, job_id)
    finally:
        await queue.aclose()


async def test_a_free_slice_is_queued_once_however_often_it_is_dispatched(base: Foundation) -> None:
    await start_items_job(base, 1, 1, 1)
    queue = await open_queue(base.settings.redis, SERVICE)
    try:
        assert [await make_dispatcher(base).dispatch(queue) for _ in range(3)] == [3, 0, 0]
    finally:
        await queue.aclose()


async def test_a_redis_that_forgets_everything_and_hangs_up_loses_no_job(
    base: Foundation, worker: StartItemsWorker
) -> None:
    gate = Gate(3)
    await worker(ItemsHandler(inside=gate))
    job_id = await start_items_job(base, 6, 6, 6, 6)
    await gate.reached.wait()
    queue = await open_queue(base.settings.redis, SERVICE)
    try:
        await queue.flushall()
        await queue.client_kill_filter(_type="normal", skipme=True)
    finally:
        await queue.aclose()
    gate.open.set()
    await ends(base, job_id)
    assert await stored_items(base, job_id) == list(range(24))
