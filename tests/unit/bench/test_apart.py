from __future__ import annotations

import os

import pytest

from bench.apart import Apart
from bench.rate import Turn


class Filler:
    """Holds memory, and tells its process and how often it was asked."""

    def __init__(self, megabytes: int) -> None:
        self._held = b"x" * (megabytes << 20)
        self._asked = 0

    def take_turn(self, seconds: float) -> Turn:
        self._asked += 1
        return Turn(self._asked, [os.getpid()])


def refuse() -> Filler:
    raise LookupError("nothing there")


def test_a_contender_stays_in_a_process_of_its_own_whose_memory_is_told() -> None:
    with Apart(Filler, 1) as small, Apart(Filler, 300) as large:
        assert [large.take_turn(0).per_second for _ in range(3)] == [1, 2, 3]
        assert small.take_turn(0).per_second == 1
        pids = {os.getpid(), *small.take_turn(0).taken, *large.take_turn(0).taken}
        assert len(pids) == 3
        assert 250 < large.read_peak_mb() - small.read_peak_mb() < 350


def test_what_building_raises_reaches_the_caller() -> None:
    with pytest.raises(LookupError, match="nothing there"):
        Apart(refuse).__enter__()
