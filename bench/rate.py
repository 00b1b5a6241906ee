"""How much a contender did in its turns, and how long one item took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Turn:
    """``items`` per second, and the seconds each took, where that is known."""

    per_second: float
    taken: Sequence[float] = ()


def make_turn(taken: Sequence[float], seconds: float) -> Turn:
    """A turn of ``seconds`` in which each item took so long. Raises ``ValueError`` for a turn in which nothing was done."""
    if not taken:
        raise ValueError("nothing was done")
    return Turn(len(taken) / seconds, taken)


def find_percentiles(turns: Sequence[Turn]) -> tuple[float, float]:
    """Median and 99th percentile of the time of one item over all turns, in milliseconds."""
    taken = np.concatenate([np.asarray(turn.taken) for turn in turns])
    p50, p99 = np.percentile(taken * 1000, [50, 99])
    return float(p50), float(p99)
