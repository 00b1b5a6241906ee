"""Heavy work in a process of its own, so that a server or worker stays responsive and gets its memory back afterwards.

The process is spawned, not forked: the parent has threads. Progress, the result and errors come back through one pipe, typed as
they were raised. If the parent dies, the child ends at its next report.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from typing import Any, Final, TypeVar

Request = TypeVar("Request")
Progress = TypeVar("Progress")
Result = TypeVar("Result")
Cancelled = Callable[[], bool]
Work = Callable[[Request, Callable[[Progress], None], Cancelled], Result]

CANCEL_POLL_S: Final = 0.2


class ChildDied(Exception):
    """The process ended without an answer: killed, most likely for want of memory.

    Nobody's request is to blame, so this is no KithError, and a job's slice in which it happens runs again.
    """


@dataclass(frozen=True, slots=True)
class _Answer:
    """The last message of a child, so that progress and results may be of any type."""

    result: Any = None
    error: Exception | None = None


def work_in_child(
    work: Work[Request, Progress, Result], request: Request, report: Callable[[Progress], None], cancelled: Cancelled
) -> Result:
    """``work(request, report, cancelled)`` in a child process; blocks, so call it from a thread.

    ``work`` is a function of a module, which the child imports; what goes in and out is pickled. ``report`` and ``cancelled``
    are called in the calling thread, the latter at least every 0.2 s. Raises what ``work`` raises, or :class:`ChildDied`.
    """
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    stop = context.Event()
    process = context.Process(
        target=_serve, args=(child_end, stop), name=getattr(work, "__name__", "work"), daemon=True
    )
    process.start()
    child_end.close()
    try:
        parent_end.send((work, request))
        while True:
            if cancelled():
                stop.set()
            wait([parent_end, process.sentinel], timeout=CANCEL_POLL_S)
            if parent_end.poll():
                message = parent_end.recv()
                if not isinstance(message, _Answer):
                    report(message)
                elif message.error is not None:
                    raise message.error
                else:
                    return message.result  # type: ignore[no-any-return]
            elif not process.is_alive():
                raise ChildDied(f"a process of its own ended with exit code {process.exitcode}")
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        process.join()
        raise ChildDied(f"a process of its own ended with exit code {process.exitcode}") from error
    finally:
        stop.set()
        parent_end.close()
        process.join()


async def watch_child(
    run: Callable[[Callable[[Progress], None], Cancelled], Result],
    tell: Callable[[Progress], Awaitable[None]],
    every_s: float,
) -> Result:
    """``run(report, cancelled)`` in a thread (see :func:`work_in_child`), telling the latest progress now and then.

    If this task is cancelled, or ``tell`` raises, the work is stopped and waited for. Raises what it raises.
    """
    stop = threading.Event()
    latest: list[Progress] = []

    def note(progress: Progress) -> None:
        latest[:] = [progress]

    work = asyncio.create_task(asyncio.to_thread(run, note, stop.is_set), name="child")
    try:
        while not (await asyncio.wait([work], timeout=every_s))[0]:
            if latest:
                await tell(latest.pop())
    finally:
        # Set also when all went well, where nobody looks at it any more.
        stop.set()
        await asyncio.wait([work])
        if not work.cancelled():
            # Looked at also where the caller is told of something else: asyncio complains of errors that nobody has seen.
            work.exception()
    return work.result()


def _serve(pipe: Connection, stop: Event) -> None:
    work, request = pipe.recv()
    try:
        answer = _Answer(work(request, pipe.send, stop.is_set))
    except BrokenPipeError:
        return
    except Exception as error:  # handed to the parent, which raises it
        answer = _Answer(error=error)
    pipe.send(answer)
