"""Kith's own grouping, as its job asks for it; options make it the exact graph's, or bare HDBSCAN."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.pipeline import group_faces
from services.clustering.grouping.request import (
    GraphMethod,
    GroupingRequest,
    GroupingSizes,
    Phase,
    Progress,
    Report,
)
from services.clustering.grouping.thresholds import ThresholdOverrides

# What a million faces are promised to need at most.
MEMORY_BUDGET_MB: Final = 5_000
# With fewer neighbours a graph is not what hdbscan sees.
PARITY_NEIGHBOURS: Final = 64

Vectors = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int32]


def warm_up(vectors: Vectors) -> None:
    """Either graph."""
    for method in GraphMethod:
        group_faces(make_request(vectors, method), lambda progress: None, lambda: False)


def group(
    vectors: Vectors,
    *,
    first: int | None = None,
    graph_method: GraphMethod | None = None,
    first_groups_only: bool = False,
) -> Labels:
    """As a job does it: all rows or the ``first`` ones; on a graph of their number or a certain one; to the end, or the first
    groups alone, as HDBSCAN on an exact graph leaves them.
    """
    rows = vectors[:first]
    request = _make_bare_request(rows) if first_groups_only else make_request(rows, graph_method)
    return group_faces(request, tell_phases(), lambda: False).labels


def make_request(vectors: Vectors, graph_method: GraphMethod | None = None) -> GroupingRequest:
    """Nothing known of these faces but their vectors."""
    return GroupingRequest(
        vectors=vectors,
        assets=np.arange(len(vectors)),
        quality=np.ones(len(vectors), dtype=np.float32),
        graph_method=graph_method,
        sizes=GroupingSizes(memory_budget_mb=MEMORY_BUDGET_MB),
    )


def _make_bare_request(vectors: Vectors) -> GroupingRequest:
    return replace(
        make_request(vectors, GraphMethod.EXACT),
        merge_and_attach=False,
        overrides=ThresholdOverrides(knn_floor=-1.0, link_floor=-1.0),
        sizes=GroupingSizes(neighbours=PARITY_NEIGHBOURS, small_set=0, memory_budget_mb=MEMORY_BUDGET_MB),
    )


def tell_phases() -> Report:
    """A report of each phase as it begins, after so many seconds."""
    begun = time.perf_counter()
    phases: list[Phase] = []

    def report(progress: Progress) -> None:
        if phases[-1:] != [progress.phase]:
            phases.append(progress.phase)
            print(f"  {time.perf_counter() - begun:6.1f} s {progress.phase}", file=sys.stderr, flush=True)

    return report
