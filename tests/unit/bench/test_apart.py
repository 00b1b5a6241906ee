from __future__ import annotations

import os

import pytest

from bench.apart import run_apart


def fill_memory(megabytes: int) -> tuple[int, int]:
    return os.getpid(), len(b"x" * (megabytes << 20))


def refuse() -> None:
    raise LookupError("nothing there")


def test_work_runs_in_a_process_of_its_own_whose_memory_is_told() -> None:
    (small_pid, _), small = run_apart(fill_memory, 1)
    (large_pid, size), large = run_apart(fill_memory, 300)
    assert os.getpid() not in (small_pid, large_pid)
    assert size == 300 << 20
    assert 250 < large - small < 350


def test_what_the_work_raises_reaches_the_caller() -> None:
    with pytest.raises(LookupError, match="nothing there"):
        run_apart(refuse)
