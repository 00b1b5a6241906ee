"""How much memory a grouping needs, stated before it starts and refused if it is more than allowed.

For N faces of D dimensions stored in b bytes each, k neighbours, E = N * k edges at most, and G groups, in bytes:

    process      320 MiB                  interpreter and libraries
    vectors      N * D * b                held for the whole run; if mapped from a file, what of it is in memory
    graph        N * k * 8                until the groups are measured
    building     :func:`~services.clustering.grouping.neighbours.plan_graph`
    forming      E * 28 + N * 96          HDBSCAN: ends, reach, ranks and their order; trees
                 E * 20 + N * 24          DBSCAN: ends, cosines, and what the ones of core faces are picked by
                 E * 52 + N * (D * 4 + 56)   agglomerative: pairs, sorted; every face is a group with a sum at first
    grouping     G * D * 8 + N * 56 + building of G    sums and centroids, members by group and photo; pairs of groups
    slices       4096 * D * 12            rows of a slice as they are, as float32, and in sums of float64
    small set    N * D * 8 + N^2 * 16     only if N <= small_set: the library's own copy and pair distances

Building, forming, grouping with slices, and small set are never alive together; the largest counts. G is taken as N / 12, but
at most N divided by the least size of a group: generated libraries have a group per 50 faces. Edges are those of a
graph in which nobody is their neighbour's neighbour and everybody is above the floor, which makes up for more groups than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from services.clustering.grouping.graph_sizes import plan_graph
from services.clustering.grouping.request import Algorithm, GraphMethod, GroupingSizes
from services.clustering.grouping.vectors import SLICE_ROWS
from shared.errors import MemoryBudgetExceeded

MIB: Final = 1024 * 1024
PROCESS_BYTES: Final = 320 * MIB
FACES_PER_GROUP: Final = 12


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by part; see the module for the formula."""

    process: int
    vectors: int
    graph: int
    building: int
    forming: int
    grouping: int
    slices: int
    small_set: int

    @property
    def peak(self) -> int:
        """Bytes held at the worst moment."""
        held = self.process + self.vectors + self.graph
        return held + max(self.building, self.forming, self.grouping + self.slices, self.small_set)

    @property
    def peak_mb(self) -> int:
        """:attr:`peak` in MiB, rounded up."""
        return math.ceil(self.peak / MIB)


def plan_memory(
    faces: int,
    dimension: int,
    algorithm: Algorithm,
    sizes: GroupingSizes,
    method: GraphMethod | None = None,
    *,
    number_bytes: int = 2,
) -> MemoryPlan:
    """The bound for ``faces`` embeddings of ``dimension`` numbers of ``number_bytes`` (float16 as stored, unless said
    otherwise), neighbours found by ``method`` (None: by size).
    """
    edges = faces * sizes.neighbours
    graph = plan_graph(faces, dimension, method, sizes)
    match algorithm:
        case Algorithm.HDBSCAN:
            forming = edges * 28 + faces * 96
        case Algorithm.DBSCAN:
            forming = edges * 20 + faces * 24
        case Algorithm.AGGLOMERATIVE:
            forming = edges * 52 + faces * (dimension * 4 + 56)
    groups = faces // max(FACES_PER_GROUP, sizes.min_cluster_size)
    pairs = plan_graph(groups, dimension, None, sizes)
    small = faces if faces <= sizes.small_set else 0
    return MemoryPlan(
        process=PROCESS_BYTES,
        vectors=faces * dimension * number_bytes,
        graph=graph.result,
        building=graph.building,
        forming=forming,
        grouping=groups * dimension * 8 + faces * 56 + pairs.building + pairs.result,
        slices=min(faces, SLICE_ROWS) * dimension * 12,
        small_set=small * dimension * 8 + small * small * 16,
    )


def check_memory(plan: MemoryPlan, budget_mb: int) -> None:
    """Raise :class:`MemoryBudgetExceeded` if the plan needs more than ``budget_mb`` MiB.

    Metadata: ``needed_mb`` and ``budget_mb``.
    """
    if plan.peak_mb > budget_mb:
        raise MemoryBudgetExceeded(
            f"grouping needs up to {plan.peak_mb} MiB and {budget_mb} are allowed; "
            "raise KITH_CLUSTERING_MEMORY_BUDGET_MB or narrow the selection",
            metadata={"needed_mb": str(plan.peak_mb), "budget_mb": str(budget_mb)},
        )
