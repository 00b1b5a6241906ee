"""Work for processes of its own: in a module that a child can import, which those of tests are not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

Report = Callable[[int], None]
Cancelled = Callable[[], bool]


def count_to(end: int, report: Report, cancelled: Cancelled) -> tuple[int, int]:
    """Tells each number, and answers with the last and with the process that has counted."""
    for number in range(1, end + 1):
        report(number)
    return end, os.getpid()


def refuse(_request: int, _report: Report, _cancelled: Cancelled) -> int:
    raise LookupError("no such thing")


def work_until_cancelled(_request: int, report: Report, cancelled: Cancelled) -> str:
    report(1)
    while not cancelled():
        time.sleep(0.01)
    return "stopped"


def leave_without_an_answer(status: int, _report: Report, _cancelled: Cancelled) -> int:
    os._exit(status)
