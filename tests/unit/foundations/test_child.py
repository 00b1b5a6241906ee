"""Work in a process of its own, and watching it: how it ends is told, and asyncio has no error of it to complain of."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
from typing import Any

import pytest

from shared.child import ChildDied, watch_child, work_in_child
from tests.unit.foundations.work import (
    Cancelled,
    Report,
    count_to,
    leave_without_an_answer,
    refuse,
    work_until_cancelled,
)


def never() -> bool:
    return False


def ignore(_progress: int) -> None:
    pass


def kill_children(_progress: int) -> None:
    for child in multiprocessing.active_children():
        child.kill()


def test_progress_and_result_come_from_another_process() -> None:
    told: list[int] = []
    end, process_id = work_in_child(count_to, 3, told.append, never)
    assert (told, end) == ([1, 2, 3], 3)
    assert process_id != os.getpid()
    assert multiprocessing.active_children() == []


def test_an_error_comes_as_it_was_raised() -> None:
    with pytest.raises(LookupError, match=r"^no such thing$"):
        work_in_child(refuse, 0, ignore, never)


def test_work_sees_that_it_was_cancelled() -> None:
    told: list[int] = []
    assert work_in_child(work_until_cancelled, 0, told.append, lambda: bool(told)) == "stopped"


def test_a_killed_process_is_told_by_its_signal() -> None:
    with pytest.raises(ChildDied, match=rf"^a process of its own ended with exit code -{signal.SIGKILL.value}$"):
        work_in_child(work_until_cancelled, 0, kill_children, never)
    assert multiprocessing.active_children() == []


def test_a_process_that_leaves_without_an_answer_is_told_by_its_status() -> None:
    with pytest.raises(ChildDied, match=r"^a process of its own ended with exit code 3$"):
        work_in_child(leave_without_an_answer, 3, ignore, never)


def fail_when_stopped(report: Report, cancelled: Cancelled) -> None:
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

    with pytest.raises(ConnectionError, match="nobody listens"):
        await watch_child(fail_when_stopped, tell, 0.001)
    gc.collect()
    assert complaints == []


async def test_what_the_work_raises_is_raised() -> None:
    def fail(report: Report, cancelled: Cancelled) -> None:
        raise ValueError("at once")

    async def tell(progress: int) -> None:
        pass

    with pytest.raises(ValueError, match="at once"):
        await watch_child(fail, tell, 0.001)
