"""A grouping in a process of its own, so that a server stays responsive and gets its memory back afterwards.

The process is spawned, not forked: the parent has threads. Progress, the result and errors come back through
one pipe, typed as they were raised. If the parent dies, the child ends at its next report.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from typing import Final

from services.clustering.grouping.request import Cancelled, GroupingRequest, GroupingResult, Progress, Report
from shared.errors import KithError

CANCEL_POLL_S: Final = 0.2


class GroupingProcessDied(KithError):
    """The process ended without an answer: killed, most likely for want of memory."""


def group_in_process(request: GroupingRequest, report: Report, cancelled: Cancelled) -> GroupingResult:
    """As :func:`group_faces`, in a child process; blocks, so call it from a thread.

    ``report`` and ``cancelled`` are called in the calling thread, the latter at least every 0.2 s. Raises
    what ``group_faces`` raises, or :class:`GroupingProcessDied`.
    """
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    stop = context.Event()
    process = context.Process(target=_serve, args=(child_end, stop), name="grouping", daemon=True)
    process.start()
    child_end.close()
    try:
        parent_end.send(request)
        while True:
            if cancelled():
                stop.set()
            wait([parent_end, process.sentinel], timeout=CANCEL_POLL_S)
            if parent_end.poll():
                message = parent_end.recv()
                if isinstance(message, Progress):
                    report(message)
                elif isinstance(message, GroupingResult):
                    return message
                else:
                    raise message
            elif not process.is_alive():
                raise GroupingProcessDied(f"the grouping process ended with exit code {process.exitcode}")
    except (EOFError, BrokenPipeError) as error:
        process.join()
        raise GroupingProcessDied(f"the grouping process ended with exit code {process.exitcode}") from error
    finally:
        stop.set()
        parent_end.close()
        process.join()


def _serve(pipe: Connection, stop: Event) -> None:
    # Here, and not above: the parent never groups, and need not pay two seconds and 150 MB for numba and scikit-learn.
    from services.clustering.grouping.pipeline import group_faces

    request = pipe.recv()
    answer: GroupingResult | Exception
    try:
        answer = group_faces(request, pipe.send, stop.is_set)
    except BrokenPipeError:
        return
    except Exception as error:  # handed to the parent, which raises it
        answer = error
    pipe.send(answer)
