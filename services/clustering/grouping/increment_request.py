"""What placing new faces is asked and what it answers; plain values that travel to another process and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.request import GroupingRequest

Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class IncrementRequest:
    """New faces among those of ``faces``, whose ``pack_thresholds`` are those of the last full run.

    ``homes`` (N,) int32: the group 0..C-1 a face is in, -1 for none; ``new`` (N,) which of the ungrouped have not been through
    a run yet; ``away`` (C,) whether a group was put away: it gains faces, and merges with none.
    """

    faces: GroupingRequest
    homes: Ints
    new: Flags
    away: Flags


@dataclass(frozen=True, slots=True)
class IncrementResult:
    """Groups 0..K-1 that differ from before, by row and by group.

    ``labels`` (N,) int32: the changed group a face is in now, -1 for all others, also those whose group is as it was.
    ``origins`` (K,) int32: the largest group of before that is part of it, -1 if it is new. ``confidence`` (N,) float32 to the
    centroid of a changed group, 0 for others; ``medoids`` (K,) rows; ``separations`` (K,) as in a full run. ``pooled``: faces
    that were formed anew.
    """

    labels: Ints
    origins: Ints
    confidence: npt.NDArray[np.float32]
    medoids: npt.NDArray[np.int64]
    separations: npt.NDArray[np.float32]
    pooled: int
    seconds: dict[str, float]


def change_nothing(count: int) -> IncrementResult:
    """The result of placing none beside ``count`` faces."""
    nothing = np.empty(0, dtype=np.float32)
    return IncrementResult(
        labels=np.full(count, -1, dtype=np.int32),
        origins=np.empty(0, dtype=np.int32),
        confidence=np.zeros(count, dtype=np.float32),
        medoids=np.empty(0, dtype=np.int64),
        separations=nothing,
        pooled=0,
        seconds={},
    )
