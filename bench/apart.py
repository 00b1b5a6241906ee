"""Runs a measurement in a process of its own, so that its memory and its threads are its own."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

KIB_PER_MB = 1024


def run_apart(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> tuple[R, float]:
    """What ``work`` answers in a fresh process, and the process's peak resident memory in MB.

    ``work`` and its arguments must be picklable. Raises what ``work`` raises.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, work, args, kwargs).result()


def _run(work: Callable[..., R], args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[R, float]:
    result = work(*args, **kwargs)
    return result, _read_peak_mb()


def _read_peak_mb() -> float:
    # Not getrusage: its figure begins with the memory of the process this one was started from.
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    if peak is None:
        raise RuntimeError("this system does not tell a process's peak memory")
    return int(peak[1]) / KIB_PER_MB
