"""The one queue in front of the models, shared by every call, stream and job of the process.

Callers wait in lanes and are served round robin, one item each, so a session of a million photos delays a
single photo by one turn and not by the queue. The queue is bounded: what does not fit, or could not be
reached in time, is refused at once instead of growing old in memory; a caller that would rather wait than be
refused must itself bound what it holds, as a stream does by its window. Work whose caller has gone is dropped
before it costs a model run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shared.errors import Overloaded, Reason, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

OnBatch = Callable[[Sequence[float]], None]
"""Hears, in the worker's thread, how many seconds each item of a batch has waited."""

# How much one more measurement moves the running mean of seconds per item.
_SMOOTHING = 0.1
# Before anything was measured.
_FIRST_GUESS_S = 0.1
_LEAST_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class BatcherLimits:
    """``workers`` threads each take up to ``max_batch`` items, waiting up to ``max_wait_s`` for a batch to fill.

    At most ``queue_max`` items wait that would be refused otherwise. A quarter as many places again are kept for
    callers who have nothing waiting, so that one who fills the queue cannot shut out the rest.
    """

    workers: int
    max_batch: int
    max_wait_s: float
    queue_max: int

    @property
    def reserve(self) -> int:
        """Places only a caller with an empty lane may take."""
        return max(1, self.queue_max // 4)


@dataclass(frozen=True, slots=True)
class BatcherState:
    """The queue at one moment: items waiting, items in a model run, callers waiting, seconds an item takes."""

    waiting: int
    running: int
    callers: int
    seconds_per_item: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Who asks, and how long it can wait.

    ``caller`` names the lane (a stream, a job, a client). The item is refused at once if its turn would come later than
    ``patience_s``, or if the queue is full, unless it ``waits``: for callers that hold only so many items at a time.
    """

    caller: str
    patience_s: float | None = None
    waits: bool = False


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    turn: Turn
    item: Item
    came: float
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """Feeds items to ``process`` in threads of its own.

    ``process`` gets 1..max_batch items and returns as many results, in their order. If it raises on a batch,
    each item is tried by itself, so that one bad photo fails alone.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Sequence[Result]],
        limits: BatcherLimits,
        *,
        name: str = "inference",
        clock: Callable[[], float] = time.monotonic,
        on_batch: OnBatch | None = None,
    ) -> None:
        self._process = process
        self._limits = limits
        self._on_batch = on_batch
        self._clock = clock
        self._changed = threading.Condition()
        self._lanes: OrderedDict[str, deque[_Entry[Item, Result]]] = OrderedDict()
        self._waiting = 0
        # Of those, the ones that would have been refused if the queue had been full.
        self._places_taken = 0
        self._running = 0
        self._closing = False
        self._seconds_per_item = _FIRST_GUESS_S
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(limits.workers)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, item: Item, turn: Turn) -> Result:
        """Wait for the result of ``item``. Cancelling the wait takes the item back if it was not begun.

        Raises :class:`Overloaded` (with ``retry_after_s``) if the queue is full or the turn would come later than its
        patience; :class:`Unavailable` (DRAINING) once closed; and whatever ``process`` raised for this item.
        """
        entry: _Entry[Item, Result] = _Entry(turn, item, self._clock())
        with self._changed:
            self._admit(turn)
            self._lanes.setdefault(turn.caller, deque()).append(entry)
            self._count(entry, 1)
            self._changed.notify()
        try:
            return await asyncio.wrap_future(entry.future)
        except asyncio.CancelledError:
            self._take_back(entry)
            raise

    def state(self) -> BatcherState:
        """The queue as it is now."""
        with self._changed:
            return BatcherState(self._waiting, self._running, len(self._lanes), self._seconds_per_item)

    async def close(self, *, drain: bool = True) -> None:
        """Refuse new items, finish those waiting (or, without ``drain``, fail them with DRAINING), and end the
        threads.
        """
        with self._changed:
            self._closing = True
            dropped = [] if drain else [entry for lane in self._lanes.values() for entry in lane]
            if not drain:
                self._lanes.clear()
                self._waiting = self._places_taken = 0
            self._changed.notify_all()
        for entry in dropped:
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(_draining())
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _admit(self, turn: Turn) -> None:
        if self._closing:
            raise _draining()
        if turn.waits:
            return
        limit = self._limits.queue_max + (0 if turn.caller in self._lanes else self._limits.reserve)
        wait_s = self._expected_wait(turn.caller)
        if self._places_taken >= limit:
            raise Overloaded(
                f"{self._waiting} photos are waiting for inference already",
                metadata={"waiting": str(self._waiting), "limit": str(limit)},
                retry_after_s=max(_LEAST_RETRY_S, wait_s),
            )
        if turn.patience_s is not None and wait_s > turn.patience_s:
            raise Overloaded(
                f"the turn would come in about {wait_s:.2f} s, the call can wait {turn.patience_s:.2f} s",
                metadata={"waiting": str(self._waiting), "expected_wait_s": f"{wait_s:.3f}"},
                retry_after_s=max(_LEAST_RETRY_S, wait_s - turn.patience_s),
            )

    def _expected_wait(self, caller: str) -> float:
        """Seconds until an item that came now would begin; 0 while a worker is idle."""
        own = len(self._lanes.get(caller, ()))
        # Each lane gives one item per round, and the new item's round is the one after those of its own lane.
        others = sum(min(len(lane), own + 1) for name, lane in self._lanes.items() if name != caller)
        ahead = own + others + self._running - (self._limits.workers * self._limits.max_batch - 1)
        return max(0, ahead) * self._seconds_per_item / self._limits.workers

    def _count(self, entry: _Entry[Item, Result], change: int) -> None:
        self._waiting += change
        if not entry.turn.waits:
            self._places_taken += change

    def _take_back(self, entry: _Entry[Item, Result]) -> None:
        with self._changed:
            lane = self._lanes.get(entry.turn.caller)
            if lane is None or entry not in lane:
                return
            lane.remove(entry)
            self._count(entry, -1)
            if not lane:
                del self._lanes[entry.turn.caller]

    def _work(self) -> None:
        while batch := self._take():
            began = self._clock()
            if self._on_batch is not None:
                self._on_batch([began - entry.came for entry in batch])
            self._answer(batch)
            seconds = (self._clock() - began) / len(batch)
            with self._changed:
                self._running -= len(batch)
                self._seconds_per_item += _SMOOTHING * (seconds - self._seconds_per_item)
            # Holding the last batch through the next wait would keep its photos in memory.
            del batch

    def _take(self) -> list[_Entry[Item, Result]]:
        """The next batch; empty once closed and nothing is left."""
        with self._changed:
            while True:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return []
                self._await_full_batch()
                batch = self._pop_batch()
                if batch:
                    self._running += len(batch)
                    return batch

    def _await_full_batch(self) -> None:
        until = self._clock() + self._limits.max_wait_s
        while 0 < self._waiting < self._limits.max_batch and not self._closing:
            left = until - self._clock()
            if left <= 0:
                return
            self._changed.wait(left)

    def _pop_batch(self) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        while self._lanes and len(batch) < self._limits.max_batch:
            caller, lane = self._lanes.popitem(last=False)
            entry = lane.popleft()
            self._count(entry, -1)
            if lane:
                self._lanes[caller] = lane
            if entry.future.set_running_or_notify_cancel():
                batch.append(entry)
        return batch

    def _answer(self, batch: Sequence[_Entry[Item, Result]]) -> None:
        try:
            results = self._process([entry.item for entry in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} items")
        except Exception as error:
            # Whatever it is belongs to the caller who waits for this item; the worker goes on.
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for entry in batch:
                self._answer([entry])
            return
        for entry, result in zip(batch, results, strict=True):
            entry.future.set_result(result)


def _draining() -> Unavailable:
    return Unavailable("inference is shutting down", reason=Reason.DRAINING)
