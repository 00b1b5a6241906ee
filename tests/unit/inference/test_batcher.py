"""The queue: fair between callers, bounded, dropping what nobody waits for, ending cleanly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from services.detection.inference.batcher import Batcher, BatcherLimits, Turn
from shared.errors import Overloaded, Reason, Unavailable

ONE = BatcherLimits(workers=1, max_batch=1, max_wait_s=0.0, queue_max=8)


class Gate:
    """A process function that records what it gets, and holds it until opened."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.opened.wait(30)
        return [item.upper() for item in items]

    @property
    def order(self) -> list[str]:
        return [item for batch in self.batches for item in batch]


async def enter(gate: Gate, batcher: Batcher[str, str]) -> asyncio.Task[str]:
    """Occupy the worker, so that what follows queues."""
    task = asyncio.create_task(batcher.submit("first", Turn("z")))
    assert await asyncio.to_thread(gate.entered.wait, 30)
    return task


async def queue(batcher: Batcher[str, str], *items: str, caller: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(batcher.submit(item, Turn(caller))) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_callers_take_turns() -> None:
    gate = Gate()
    batcher = Batcher(gate, ONE)
    first = await enter(gate, batcher)
    tasks = await queue(batcher, "a1", "a2", "a3", "a4", caller="a")
    tasks += await queue(batcher, "b1", "b2", caller="b")
    tasks += await queue(batcher, "c1", caller="c")
    gate.opened.set()
    assert await asyncio.gather(first, *tasks) == ["FIRST", "A1", "A2", "A3", "A4", "B1", "B2", "C1"]
    assert gate.order == ["first", "a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    await batcher.close()


async def test_cancelled_work_never_reaches_the_model_and_frees_its_place() -> None:
    gate = Gate()
    batcher = Batcher(gate, ONE)
    first = await enter(gate, batcher)
    tasks = await queue(batcher, "a1", "a2", "a3", caller="a")
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert batcher.state().waiting == 2
    gate.opened.set()
    await asyncio.gather(first, tasks[0], tasks[2])
    assert gate.order == ["first", "a1", "a3"]
    await batcher.close()


async def test_cancelling_work_in_progress_leaves_the_rest_whole() -> None:
    gate = Gate()
    batcher = Batcher(gate, ONE)
    first = await enter(gate, batcher)
    (second,) = await queue(batcher, "second", caller="a")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.opened.set()
    assert await second == "SECOND"
    await batcher.close()


async def test_a_full_queue_refuses_with_a_time_to_come_back_but_keeps_places_for_others() -> None:
    gate = Gate()
    batcher = Batcher(gate, ONE)
    first = await enter(gate, batcher)
    tasks = await queue(batcher, *(f"a{i}" for i in range(8)), caller="a")
    with pytest.raises(Overloaded) as refused:
        await batcher.submit("a8", Turn("a"))
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0
    assert refused.value.metadata["waiting"] == "8"
    tasks += await queue(batcher, "b", caller="b")
    tasks += await queue(batcher, "c", caller="c")
    with pytest.raises(Overloaded):
        await batcher.submit("d", Turn("d"))
    with pytest.raises(Overloaded):
        await batcher.submit("b2", Turn("b"))
    gate.opened.set()
    await asyncio.gather(first, *tasks)
    assert gate.order[1:4] == ["a0", "b", "c"]
    await batcher.close()


async def test_a_turn_that_comes_too_late_is_refused_at_once() -> None:
    gate = Gate()
    batcher = Batcher(gate, ONE)
    first = await enter(gate, batcher)
    tasks = await queue(batcher, "a", "b", "c", caller="a")
    with pytest.raises(Overloaded, match="the turn would come"):
        await batcher.submit("hurried", Turn("b", 0.01))
    tasks.append(asyncio.create_task(batcher.submit("patient", Turn("b", 60))))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(first, *tasks)
    assert "hurried" not in gate.order
    assert "patient" in gate.order
    await batcher.close()


async def test_batches_fill_across_callers_up_to_the_limit() -> None:
    gate = Gate()
    batcher = Batcher(gate, BatcherLimits(workers=1, max_batch=3, max_wait_s=0.0, queue_max=16))
    first = await enter(gate, batcher)
    tasks = await queue(batcher, "a1", "a2", "a3", caller="a")
    tasks += await queue(batcher, "b1", caller="b")
    gate.opened.set()
    await asyncio.gather(first, *tasks)
    assert gate.batches == [["first"], ["a1", "b1", "a2"], ["a3"]]
    await batcher.close()


async def test_a_batch_waits_for_company() -> None:
    batches: list[list[str]] = []

    def process(items: Sequence[str]) -> list[str]:
        batches.append(list(items))
        return list(items)

    # A wait this long ends only because the batch is full.
    batcher = Batcher(process, BatcherLimits(workers=1, max_batch=2, max_wait_s=600.0, queue_max=16))
    first, second = await asyncio.gather(batcher.submit("a", Turn("a")), batcher.submit("b", Turn("b")))
    assert (first, second) == ("a", "b")
    assert batches == [["a", "b"]]
    await batcher.close()


async def test_one_bad_item_fails_alone() -> None:
    def process(items: Sequence[str]) -> list[str]:
        if "bad" in items:
            raise ValueError("bad photo")
        return list(items)

    batcher = Batcher(process, BatcherLimits(workers=1, max_batch=3, max_wait_s=600.0, queue_max=16))
    calls = (batcher.submit(item, Turn("a")) for item in ("good", "bad", "fine"))
    good, bad, fine = await asyncio.gather(*calls, return_exceptions=True)
    assert (good, fine) == ("good", "fine")
    assert isinstance(bad, ValueError)
    await batcher.close()


async def test_close_drains_and_then_refuses() -> None:
    gate = Gate()
    batcher = Batcher(gate, ONE)
    first = await enter(gate, batcher)
    tasks = await queue(batcher, "a", "b", caller="a")
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await batcher.submit("late", Turn("a"))
    assert refused.value.reason is Reason.DRAINING
    gate.opened.set()
    await closing
    assert [await task for task in (first, *tasks)] == ["FIRST", "A", "B"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inference-")]


async def test_close_without_drain_fails_what_waits() -> None:
    gate = Gate()
    batcher = Batcher(gate, ONE)
    first = await enter(gate, batcher)
    (waiting,) = await queue(batcher, "a", caller="a")
    closing = asyncio.create_task(batcher.close(drain=False))
    await asyncio.sleep(0)
    gate.opened.set()
    await closing
    assert await first == "FIRST"
    with pytest.raises(Unavailable):
        await waiting
    assert gate.order == ["first"]


async def test_workers_run_side_by_side() -> None:
    both = threading.Barrier(2)

    def process(items: Sequence[str]) -> list[str]:
        both.wait(30)
        return list(items)

    batcher = Batcher(process, BatcherLimits(workers=2, max_batch=1, max_wait_s=0.0, queue_max=4))
    first, second = await asyncio.gather(batcher.submit("a", Turn("a")), batcher.submit("b", Turn("a")))
    assert (first, second) == ("a", "b")
    await batcher.close()


async def test_who_waits_is_not_refused_and_takes_nobodys_place() -> None:
    gate = Gate()
    batcher = Batcher(gate, ONE)
    first = await enter(gate, batcher)
    waiting = [asyncio.create_task(batcher.submit(f"s{i}", Turn("stream", waits=True))) for i in range(30)]
    await asyncio.sleep(0)
    assert batcher.state().waiting == 30
    tasks = await queue(batcher, *(f"a{i}" for i in range(8)), caller="a")
    with pytest.raises(Overloaded):
        await batcher.submit("a8", Turn("a"))
    gate.opened.set()
    await asyncio.gather(first, *waiting, *tasks)
    assert gate.order[1:5] == ["s0", "a0", "s1", "a1"]
    await batcher.close()


async def test_the_wait_is_reckoned_by_turns_and_not_by_the_queue() -> None:
    gate = Gate()
    batcher = Batcher(gate, BatcherLimits(workers=1, max_batch=1, max_wait_s=0.0, queue_max=500), clock=lambda: 0.0)
    first = await enter(gate, batcher)
    per_item = batcher.state().seconds_per_item
    tasks = await queue(batcher, *(f"a{i}" for i in range(100)), caller="a")
    # One in work and one of the other's are before a newcomer, all hundred before one more of the same caller.
    tasks.append(asyncio.create_task(batcher.submit("b", Turn("b", patience_s=2.5 * per_item))))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="the turn would come") as refused:
        await batcher.submit("late", Turn("a", patience_s=50 * per_item))
    assert refused.value.retry_after_s == pytest.approx(52 * per_item)
    gate.opened.set()
    await asyncio.gather(first, *tasks)
    await batcher.close()


async def test_batches_are_told_with_the_time_each_item_waited() -> None:
    now = 0.0
    told: list[list[float]] = []
    gate = Gate()
    limits = BatcherLimits(workers=1, max_batch=2, max_wait_s=0.0, queue_max=8)
    batcher = Batcher(gate, limits, clock=lambda: now, on_batch=lambda waited: told.append(list(waited)))
    first = await enter(gate, batcher)
    tasks = await queue(batcher, "a", caller="a")
    now = 2.0
    tasks += await queue(batcher, "b", caller="b")
    now = 5.0
    gate.opened.set()
    await asyncio.gather(first, *tasks)
    assert told == [[0.0], [5.0, 3.0]]
    await batcher.close()


async def test_a_cancelled_item_gives_its_place_to_the_next() -> None:
    gate = Gate()
    batcher = Batcher(gate, BatcherLimits(workers=1, max_batch=1, max_wait_s=0.0, queue_max=1))
    first = await enter(gate, batcher)
    (gone,) = await queue(batcher, "gone", caller="a")
    with pytest.raises(Overloaded):
        await batcher.submit("refused", Turn("a"))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    tasks = await queue(batcher, "next", caller="a")
    gate.opened.set()
    await asyncio.gather(first, *tasks)
    assert gate.order == ["first", "next"]
    await batcher.close()


async def test_a_wrong_number_of_results_is_an_error_of_each_item() -> None:
    batcher: Batcher[str, str] = Batcher(lambda items: [], ONE)
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await batcher.submit("a", Turn("a"))
    await batcher.close()
