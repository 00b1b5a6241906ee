"""Watching work in a thread: it is stopped and waited for, and no error of it is left for asyncio to complain of."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from shared.child import watch_child


def fail_when_stopped(report: Callable[[int], None], cancelled: Callable[[], bool]) -> None:
    report(1)
    while not cancelled():
        pass
    raise ValueError("stopped half-way")


@pytest.fixture
async def complaints() -> list[dict[str, Any]]:
    """What asyncio says that nobody has looked at."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: found.append(context))
    return found


async def test_the_error_of_work_that_was_cancelled_has_been_seen(complaints: list[dict[str, Any]]) -> None:
    told = asyncio.Event()

    async def tell(progress: int) -> None:
        told.set()

    task = asyncio.create_task(watch_child(fail_when_stopped, tell, 0.001))
    await told.wait()
    task.cancel()
    (end,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(end, asyncio.CancelledError)
    del task, end
    # What ran last lets go of it.
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []


async def test_whoever_cannot_be_told_is_the_error_and_no_other(complaints: list[dict[str, Any]]) -> None:
    async def tell(progress: int) -> None:
        raise ConnectionError("nobody listens")

    with pytest.raises(ConnectionError):
        await watch_child(fail_when_stopped, tell, 0.001)
    gc.collect()
    assert complaints == []


async def test_what_the_work_raises_is_raised() -> None:
    def fail(report: Callable[[int], None], cancelled: Callable[[], bool]) -> None:
        raise ValueError("at once")

    async def tell(progress: int) -> None:
        pass

    with pytest.raises(ValueError, match="at once"):
        await watch_child(fail, tell, 0.001)
