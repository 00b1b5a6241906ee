"""Kith's way with faces that came after a full run: placed beside the groups there are."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from bench.areas.clustering.contenders import kith
from bench.areas.clustering.contenders.kith import Labels, Vectors
from services.clustering.grouping.increment import place_faces
from services.clustering.grouping.increment_request import IncrementRequest
from services.clustering.grouping.thresholds import ARCFACE_THRESHOLDS, Thresholds

WARM_UP_NEW: Final = 200


def warm_up(vectors: Vectors) -> None:
    """A full run, and an increment behind it."""
    kith.warm_up(vectors)
    homes = kith.group(vectors, first=len(vectors) - WARM_UP_NEW)
    group(vectors, homes=homes, thresholds=ARCFACE_THRESHOLDS)


def group(vectors: Vectors, *, homes: Labels, thresholds: Thresholds) -> Labels:
    """Labels of all rows. The first are in ``homes``, found by a full run with these ``thresholds``; the rest are new."""
    known = np.concatenate([homes, np.full(len(vectors) - len(homes), -1, dtype=np.int32)])
    request = IncrementRequest(
        faces=replace(kith.make_request(vectors), pack_thresholds=thresholds),
        homes=known,
        new=np.arange(len(vectors)) >= len(homes),
        away=np.zeros(int(homes.max(initial=-1)) + 1, dtype=np.bool_),
    )
    placed = place_faces(request, kith.tell_phases(), lambda: False)
    return np.where(placed.labels >= 0, placed.labels + len(request.away), known).astype(np.int32)
