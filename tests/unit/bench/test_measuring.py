from __future__ import annotations

import os

import pytest

from bench.areas.detection_soak import ResidentMemory
from bench.rate import find_percentiles, make_turn


def test_a_turn_counts_items_and_knows_how_long_one_took() -> None:
    turns = [make_turn([0.010] * 98, seconds=2.0), make_turn([0.200] * 2, seconds=1.0)]
    assert [turn.per_second for turn in turns] == [49, 2]
    p50, p99 = find_percentiles(turns)
    assert p50 == pytest.approx(10)
    assert p99 == pytest.approx(200)


def test_nothing_done_is_an_error_not_a_rate_of_zero() -> None:
    with pytest.raises(ValueError, match="nothing was done"):
        make_turn([], seconds=2.0)


def test_memory_is_sampled_at_least_once() -> None:
    with ResidentMemory(os.getpid()) as memory:
        pass
    assert len(memory.samples) >= 1
    assert memory.samples[0] > 1
