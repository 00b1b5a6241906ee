"""Photos per second and how long each took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Rate:
    """``photos`` in ``seconds``; percentiles of the time of one, in milliseconds."""

    photos: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, taken: Sequence[float], seconds: float) -> Self:
        """From the seconds each photo took, and all of them together."""
        if not taken:
            raise ValueError("nothing was measured")
        p50, p99 = np.percentile(np.asarray(taken) * 1000, [50, 99])
        return cls(len(taken), seconds, float(p50), float(p99))

    @property
    def per_second(self) -> float:
        return self.photos / self.seconds
