"""Contenders in processes of their own, so that the memory, the threads and the warm caches of each are its own.

A contender stays and is asked again and again: so several can take turns of a second or two, and a slow minute of the machine
falls on all of them.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from bench.rate import Turn

KIB_PER_MB = 1024


class Contender(Protocol):
    """Something whose speed is measured."""

    def take_turn(self, seconds: float) -> Turn:
        """Work for about so long, and say how much was done."""
        ...


C = TypeVar("C", bound=Contender)


class Apart(Generic[C]):
    """A contender that ``build`` makes of ``args`` in a fresh process, which ends with the context."""

    def __init__(self, build: Callable[..., C], *args: object) -> None:
        """All of it must be picklable; what ``build`` raises comes out of entering."""
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._build = build
        self._args = args

    def __enter__(self) -> Self:
        try:
            self._pool.submit(_hold, self._build, self._args).result()
        except BaseException:
            self._pool.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def take_turn(self, seconds: float) -> Turn:
        """A turn of the contender; raises what it raises."""
        return self._pool.submit(_take_turn, seconds).result()

    def read_peak_mb(self) -> float:
        """Peak resident memory of its process so far, in MB."""
        return self._pool.submit(read_peak_mb).result()


_held: list[Contender] = []


def _hold(build: Callable[..., Contender], args: tuple[object, ...]) -> None:
    _held[:] = [build(*args)]


def _take_turn(seconds: float) -> Turn:
    return _held[0].take_turn(seconds)


def read_peak_mb(pid: int | str = "self") -> float:
    """Peak resident memory of a process, in MB.

    Not getrusage: its figure begins with the memory of the process this one was started from. Raises ``OSError`` where there
    is no /proc.
    """
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if peak is None:
        raise OSError("this system does not tell a process's peak memory")
    return int(peak[1]) / KIB_PER_MB
