"""How much memory a grouping needs, stated before it starts and refused if it is more than allowed.

For N faces of D dimensions, k neighbours, T threads and blocks of B rows, in bytes:

    vectors    N * D * 4               held for the whole run
    graph      N * k * 8               int32 row and float32 cosine per neighbour
    blocks     T * B * B * 4           one product per thread
    forest     N * k * 24 + N * 96     edges (ends, cosine, reach, sort order; at worst k per face) and trees
    groups     (N / m) * D * 12        sums, centroids and one copy; at worst N / m groups of the least size m
    slices     2048 * D * 12 + 8 MiB   rows of a slice as float32 and float64, one block of centroid products
    small set  N * D * 8 + N^2 * 16    only if N <= small_set: the library's own copy and pair distances

Blocks, forest, groups with slices, and small set are never alive together; the largest counts. These are bounds: a
collection with few links needs far less than ``forest``, one with few groups less than ``groups``. Agglomerative starts
with a group per face, so m is 1 there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.clustering.grouping.request import Algorithm, GroupingSizes
from shared.errors import MemoryBudgetExceeded

MIB = 1024 * 1024
SLICE_ROWS = 2048


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by part; see the module for the formula."""

    vectors: int
    graph: int
    blocks: int
    forest: int
    groups: int
    slices: int
    small_set: int

    @property
    def peak(self) -> int:
        """Bytes held at the worst moment."""
        return self.vectors + self.graph + max(self.blocks, self.forest, self.groups + self.slices, self.small_set)

    @property
    def peak_mb(self) -> int:
        """:attr:`peak` in MiB, rounded up."""
        return math.ceil(self.peak / MIB)


def plan_memory(faces: int, dimension: int, algorithm: Algorithm, sizes: GroupingSizes) -> MemoryPlan:
    """The bound for ``faces`` embeddings of ``dimension`` numbers."""
    block = min(sizes.block_rows, max(1, faces))
    least_group = 1 if algorithm is Algorithm.AGGLOMERATIVE else sizes.min_cluster_size
    small = faces if faces <= sizes.small_set else 0
    return MemoryPlan(
        vectors=faces * dimension * 4,
        graph=faces * sizes.neighbours * 8,
        blocks=sizes.threads * block * block * 4,
        forest=faces * sizes.neighbours * 24 + faces * 96,
        groups=faces * dimension * 12 // least_group,
        slices=min(faces, SLICE_ROWS) * dimension * 12 + 8 * MIB,
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
