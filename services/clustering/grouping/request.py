"""What a grouping is asked and what it answers; plain values that travel to another process and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.thresholds import ThresholdOverrides, Thresholds
from shared.errors import KithError
from shared.faces.embeddings import Vectors

Labels = npt.NDArray[np.int32]


class Algorithm(StrEnum):
    """How the first groups are found; merge and attach follow alike. Limits of each are in ``alternatives.py``."""

    HDBSCAN = "HDBSCAN"
    DBSCAN = "DBSCAN"
    AGGLOMERATIVE = "AGGLOMERATIVE"


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
    """The caller's flag was seen between two blocks; nothing was kept."""

    def __init__(self) -> None:
        super().__init__("the grouping was cancelled")

    def __reduce__(self) -> tuple[type[GroupingCancelled], tuple[()]]:
        return GroupingCancelled, ()


@dataclass(frozen=True, slots=True)
class GroupingSizes:
    """Counts and limits, from ``ClusteringSettings``. ``veto_share``: two groups whose photos overlap by more
    than this share of the smaller group's photos are two people.
    """

    neighbours: int = 32
    min_cluster_size: int = 3
    min_samples: int = 3
    small_set: int = 2000
    block_rows: int = 2048
    threads: int = 2
    memory_budget_mb: int = 4096
    veto_share: float = 0.1


@dataclass(frozen=True, slots=True)
class GroupingRequest:
    """Faces to group.

    ``vectors`` (N, D) float32 unit rows; ``assets`` (N,) any integers, equal for faces of one photo;
    ``quality`` (N,) 0..1. Faces below ``seed_floor`` may join a group but never form one. ``pack_thresholds``
    are those of the embedding space, if its pack has any; ``overrides`` win over them.
    """

    vectors: Vectors
    assets: npt.NDArray[np.integer]
    quality: npt.NDArray[np.floating]
    algorithm: Algorithm = Algorithm.HDBSCAN
    seed_floor: float = 0.2
    pack_thresholds: Thresholds | None = None
    overrides: ThresholdOverrides = field(default_factory=ThresholdOverrides)
    sizes: GroupingSizes = field(default_factory=GroupingSizes)


@dataclass(frozen=True, slots=True)
class GroupingMetrics:
    """The run in figures. ``cohesion`` is the mean cosine of grouped faces to their own centroid (0 without
    groups); ``peak_bytes`` is the plan's bound, not a measurement.
    """

    faces: int
    clusters: int
    noise: int
    seeds: int
    merged: int
    attached: int
    vetoed: int
    largest: int
    cohesion: float
    peak_bytes: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GroupingResult:
    """``labels`` (N,) int32: group 0..K-1, largest first, or -1 for noise. ``confidence`` (N,) float32:
    cosine to the centroid of the own group, 0 for noise. ``centroids`` (K, D) float32 unit rows.
    ``thresholds`` as resolved: store them with the run.
    """

    labels: Labels
    confidence: npt.NDArray[np.float32]
    centroids: Vectors
    thresholds: Thresholds
    metrics: GroupingMetrics
