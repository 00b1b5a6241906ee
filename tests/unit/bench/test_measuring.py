from __future__ import annotations

import os

import pytest

from bench.areas.detection.rate import Rate
from bench.areas.detection_soak import ResidentMemory


def test_a_rate_counts_photos_and_knows_how_long_one_took() -> None:
    rate = Rate.of([0.010] * 98 + [0.200] * 2, seconds=2.0)
    assert rate.per_second == 50
    assert rate.p50_ms == pytest.approx(10)
    assert rate.p99_ms == pytest.approx(200)


def test_nothing_measured_is_an_error_not_a_rate_of_zero() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Rate.of([], seconds=2.0)


def test_memory_is_sampled_at_least_once() -> None:
    with ResidentMemory(os.getpid()) as memory:
        pass
    assert len(memory.samples) >= 1
    assert memory.samples[0] > 1
