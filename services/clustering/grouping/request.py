"""What a grouping is asked and what it answers; plain values that travel to another process and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.thresholds import ThresholdOverrides, Thresholds
from shared.errors import KithError
from shared.faces.embeddings import Vectors

Labels = npt.NDArray[np.int32]


class Algorithm(StrEnum):
    """How the first groups are found; merge and attach follow alike. Limits of each are in ``alternatives.py``."""

    HDBSCAN = "HDBSCAN"
    DBSCAN = "DBSCAN"
    AGGLOMERATIVE = "AGGLOMERATIVE"


class GraphMethod(StrEnum):
    """How nearest neighbours are found: among all pairs, or within the cells of a k-means partition."""

    EXACT = "EXACT"
    INVERTED_LISTS = "INVERTED_LISTS"


class Phase(StrEnum):
    """What a grouping is doing, in this order; ``MERGE`` comes again after ``ATTACH``."""

    NEIGHBOURS = "NEIGHBOURS"
    FORM = "FORM"
    MERGE = "MERGE"
    ATTACH = "ATTACH"
    MEASURE = "MEASURE"


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` steps of a phase."""

    phase: Phase
    done: int
    total: int


Report = Callable[[Progress], None]
Cancelled = Callable[[], bool]


class GroupingCancelled(KithError):
    """The caller's flag was seen between two blocks."""

    def __init__(self) -> None:
        super().__init__("the grouping was cancelled")

    def __reduce__(self) -> tuple[type[GroupingCancelled], tuple[()]]:
        return GroupingCancelled, ()


@dataclass(frozen=True, slots=True)
class GroupingSizes:
    """Counts and limits, from ``ClusteringSettings`` and the request. Up to ``exact_faces`` the graph is exact unless the
    request says otherwise; up to ``small_set`` first groups are the hdbscan library's. ``veto_share``: two groups
    whose photos overlap by more than this share of the smaller group's photos are two people.
    """

    neighbours: int = 32
    min_cluster_size: int = 3
    min_samples: int = 3
    small_set: int = 2000
    exact_faces: int = 50_000
    block_rows: int = 2048
    threads: int = 2
    memory_budget_mb: int = 4096
    veto_share: float = 0.1


@dataclass(frozen=True, slots=True)
class GroupingRequest:
    """Faces to group.

    ``vectors`` (N, D) float32 or float16 unit rows, in memory or mapped from a file; ``assets`` (N,) any integers, equal for
    faces of one photo; ``quality`` (N,) 0..1. ``anchors`` (N,) int32: faces with the same number >= 0 were put together by a
    human and end in one group, those with different ones in different groups; -1: free. None: all are free.

    Faces below ``seed_floor`` may join a group but never form one. ``pack_thresholds`` are those of the embedding space, if
    its pack has any; ``overrides`` win over them. ``graph``: the neighbours, if somebody else has found them; else they are
    found by ``graph_method`` (None: by size), and what is found is kept in the folder ``checkpoint`` as it grows, so that the
    same request goes on from there. ``merge_and_attach`` False leaves the first groups as they are.
    """

    vectors: npt.NDArray[np.floating]
    assets: npt.NDArray[np.integer]
    quality: npt.NDArray[np.floating]
    anchors: npt.NDArray[np.int32] | None = None
    algorithm: Algorithm = Algorithm.HDBSCAN
    graph: NeighbourGraph | None = None
    graph_method: GraphMethod | None = None
    checkpoint: Path | None = None
    merge_and_attach: bool = True
    seed_floor: float = 0.2
    pack_thresholds: Thresholds | None = None
    overrides: ThresholdOverrides = field(default_factory=ThresholdOverrides)
    sizes: GroupingSizes = field(default_factory=GroupingSizes)


@dataclass(frozen=True, slots=True)
class GroupingMetrics:
    """The run in figures. ``cohesion`` is the mean cosine of grouped faces to their own centroid, ``separation`` the mean over
    faces of what their group's cohesion is above the cosine of its centroid to the nearest other (0 without groups).
    ``silhouette`` (by cosine distance) and ``validity`` (DBCV; Moulavi et al. 2014) are of a sample, -1..1, 0 if there is
    none. ``graph_method`` None: the graph was given. ``planned_bytes`` is the plan's bound, ``peak_bytes`` what the process
    held at most.
    """

    faces: int
    clusters: int
    noise: int
    seeds: int
    merged: int
    attached: int
    vetoed: int
    largest: int
    median_size: float
    cohesion: float
    separation: float
    silhouette: float
    validity: float
    graph_method: GraphMethod | None
    planned_bytes: int
    peak_bytes: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GroupingResult:
    """``labels`` (N,) int32: group 0..K-1, largest first, or -1 for noise. ``confidence`` (N,) float32:
    cosine to the centroid of the own group, 0 for noise. ``centroids`` (K, D) float32 unit rows. ``medoids`` (K,) int64: the
    row nearest to each centroid. ``cohesions`` (K,) float32: mean confidence. ``separations`` (K,) float32: cohesion less the
    cosine of the centroid to the nearest other; NaN if there is no other.
    ``thresholds`` as resolved: store them with the run.
    """

    labels: Labels
    confidence: npt.NDArray[np.float32]
    centroids: Vectors
    medoids: npt.NDArray[np.int64]
    cohesions: npt.NDArray[np.float32]
    separations: npt.NDArray[np.float32]
    thresholds: Thresholds
    metrics: GroupingMetrics
