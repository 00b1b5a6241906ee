"""Streams of work: several items at once but never more than a window, and batches read ahead of their use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def _never() -> None:
    await asyncio.Event().wait()


async def map_windowed(
    items: AsyncIterator[T],
    work: Callable[[T], Awaitable[R]],
    window: int,
    interruption: Callable[[], Awaitable[None]] = _never,
) -> AsyncGenerator[R, None]:
    """Results of ``work`` on each item, as they come, with at most ``window`` items taken and not yet handed on.

    An item is taken only when there is room, so a slow reader of the results stops the reading of items. Closing the
    generator cancels the work in hand. Raises what ``items`` or ``work`` raise, after the results before it; and what
    ``interruption`` raises, from when on no item is taken any more, after the results of those that were.
    """
    room = asyncio.Semaphore(window)
    done: asyncio.Queue[tuple[R] | None] = asyncio.Queue()

    async def work_on(item: T) -> None:
        done.put_nowait((await work(item),))

    async def take_items(working: asyncio.TaskGroup) -> None:
        while True:
            await room.acquire()
            try:
                item = await anext(items)
            except StopAsyncIteration:
                break
            working.create_task(work_on(item))

    async def work_on_all() -> None:
        interrupting = asyncio.ensure_future(interruption())
        try:
            async with asyncio.TaskGroup() as working:
                # Not of the group: what goes wrong in it must not take the work in hand with it.
                taking = asyncio.create_task(take_items(working))
                try:
                    await asyncio.wait((taking, interrupting), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    interrupted = not taking.done()
                    taking.cancel()
            await (interrupting if interrupted else taking)
        finally:
            await _end(interrupting)
            done.put_nowait(None)

    working = asyncio.create_task(work_on_all())
    try:
        while (result := await done.get()) is not None:
            yield result[0]
            room.release()
        await working
    finally:
        await _end(working)


async def read_batches(items: AsyncGenerator[T, None], size: int) -> AsyncGenerator[list[T], None]:
    """``items`` in lists of ``size``, the last one shorter, while up to as many again are read ahead.

    If ``items`` raises, what had come before is handed out first. Closing the generator closes ``items``.
    """
    room = asyncio.Semaphore(2 * size)
    come: asyncio.Queue[tuple[T] | None] = asyncio.Queue()

    async def read_ahead() -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    await room.acquire()
                    come.put_nowait((item,))
        finally:
            come.put_nowait(None)

    reading = asyncio.create_task(read_ahead())
    batch: list[T] = []
    try:
        while (item := await come.get()) is not None:
            batch.append(item[0])
            if len(batch) == size:
                yield batch
                for _ in batch:
                    room.release()
                batch = []
        if batch:
            yield batch
        await reading
    finally:
        await _end(reading)


async def _end(task: asyncio.Future[None]) -> None:
    """Cancel a task that may have ended and wait until it has; its error is for whoever awaits it, not for here."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
