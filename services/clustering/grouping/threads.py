"""Blocks of work in a few threads, a bounded number ahead of whoever takes the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_AHEAD = 2


@contextmanager
def work_in_threads(
    work: Callable[[Item], Answer], items: Iterable[Item], threads: int
) -> Iterator[Iterator[tuple[Item, Answer]]]:
    """Items with their answers, in order. Leaving waits for what has begun and drops the rest."""
    waiting: deque[tuple[Item, Future[Answer]]] = deque()

    def answers() -> Iterator[tuple[Item, Answer]]:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= _AHEAD * threads:
                yield _take(waiting)
        while waiting:
            yield _take(waiting)

    with ThreadPoolExecutor(threads, thread_name_prefix="neighbours") as pool:
        try:
            yield answers()
        finally:
            for _, future in waiting:
                future.cancel()


def _take(waiting: deque[tuple[Item, Future[Answer]]]) -> tuple[Item, Answer]:
    item, future = waiting.popleft()
    return item, future.result()
