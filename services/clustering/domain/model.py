"""Clusters, runs and centroids, in the domain's own types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from shared.clock import Clock
from shared.config import ClusteringSettings, QualitySettings, SuggestionSettings
from shared.errors import Code, KithError, Reason
from shared.faces.embeddings import Vectors
from shared.faces.projection import LearntSpace
from shared.ids import IdFactory


@dataclass(frozen=True, slots=True)
class ClusteringDeps:
    """What the use cases need besides the stores."""

    clock: Clock
    ids: IdFactory
    settings: ClusteringSettings
    quality: QualitySettings
    suggestions: SuggestionSettings


class ClusterState(StrEnum):
    """Whether a cluster is shown, or was put away."""

    ACTIVE = "ACTIVE"
    DISMISSED = "DISMISSED"


class ClusterMode(StrEnum):
    """Whether faces of known people are assigned before the rest is grouped."""

    UNSUPERVISED = "UNSUPERVISED"
    DUAL = "DUAL"


class ClusterScope(StrEnum):
    """Whether every selected face is grouped, or only those that came since the last run and what they touch."""

    FULL = "FULL"
    INCREMENTAL = "INCREMENTAL"


class ClusterChanged(KithError):
    """The cluster has other members than the caller saw, or is gone: read again, decide again."""

    code = Code.ABORTED
    reason = Reason.CLUSTER_CHANGED

    def __init__(self, cluster_id: str, current: str) -> None:
        now = f"its etag is now '{current}'" if current else "it is gone"
        super().__init__(
            f"cluster '{cluster_id}' has changed: {now}",
            metadata={"cluster_id": cluster_id, "current_etag": current},
        )


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """The embedding space a library works in, with the cosines its pack carries, by name.

    ``learnt``: the space of the library's matcher ``matcher_id``, in which faces are grouped if it has one; looked up for that
    only.
    """

    model_version: str
    dimension: int
    thresholds: Mapping[str, float]
    learnt: LearntSpace | None = None
    matcher_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as it is now: figures, cover, medoid, dates and etag are of its live members.

    A member is live while its face is ACTIVE and has no person. ``cohesion`` is the mean cosine to the centroid, -1..1.
    ``separation`` is of when it was last written; None if there was no other cluster then.
    """

    cluster_id: str
    library_id: str
    state: ClusterState
    number: int
    face_count: int
    cohesion: float
    cover_face_id: UUID
    first_captured: datetime | None
    last_captured: datetime | None
    run_id: UUID
    created_at: datetime
    updated_at: datetime
    etag: str
    medoid_face_id: UUID
    separation: float | None


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """A live face of a cluster; ``confidence`` is its cosine to the centroid."""

    face_id: UUID
    asset_id: str
    confidence: float


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """One row of ``cluster_runs``. ``thresholds`` are cosines, ``seconds`` by phase.

    ``parameters`` are those in force, named as in the contract's GroupingParameters, and ``min_cluster_size``. ``outcome``
    counts clusters (``grown``, ``split``, ``merged``, ``created``, ``gone``) and faces (``assigned``, ``suggested``,
    ``missing``). ``read_at``: when the faces were read; None for runs of the version before 0004.
    """

    run_id: UUID
    library_id: str
    job_id: UUID
    mode: ClusterMode
    algorithm: str
    model_version: str
    faces: int
    clusters: int
    clustered: int
    noise: int
    kept: int
    thresholds: Mapping[str, float]
    seconds: Mapping[str, float]
    created_at: datetime
    scope: ClusterScope = ClusterScope.FULL
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    outcome: Mapping[str, int] = field(default_factory=dict)
    read_at: datetime | None = None
    matcher_id: UUID | None = None


class CentroidKind(StrEnum):
    """Of all of a person's faces, or of one mode of them."""

    GLOBAL = "GLOBAL"
    CLUSTER = "CLUSTER"


@dataclass(frozen=True, slots=True)
class Centroid:
    """One row of ``centroids``; ``stale`` if the person's faces are others now. ``vector``: (D,) float32, unit length."""

    centroid_id: UUID
    library_id: str
    person_id: UUID
    kind: CentroidKind
    mode: int
    model_version: str
    version: int
    face_count: int
    trimmed_count: int
    stale: bool
    computed_at: datetime
    vector: Vectors


@dataclass(frozen=True, slots=True)
class NewCentroid:
    """A centroid just computed; ``mode`` 0 for GLOBAL, else 0, 1, .. from the largest mode on."""

    kind: CentroidKind
    mode: int
    vector: Vectors
    face_count: int
    trimmed_count: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a person's centroids stand: the hash and number of their faces now, and what is stored (None: nothing).

    Who is merged or deleted has no faces here. ``mark``: the number of the last change in the queue; None: not in it.
    """

    person_id: UUID
    members_hash: bytes
    face_count: int
    stored_hash: bytes | None
    stored_version: int
    mark: int | None

    @property
    def stale(self) -> bool:
        """Whether something must be computed, or deleted for want of faces."""
        wanted = self.members_hash if self.face_count else None
        return self.stored_hash != wanted


@dataclass(frozen=True, slots=True)
class PersonCentroids:
    """What was computed for one person, and the standing it was computed from. No centroids: no faces."""

    standing: Standing
    centroids: Sequence[NewCentroid]


@dataclass(frozen=True, slots=True)
class Computation:
    """What was computed for some persons, and how those stand for whom nothing had to be."""

    computed: Sequence[PersonCentroids]
    fresh: Sequence[Standing]

    @property
    def settles(self) -> bool:
        """Whether there is anything to store, or anybody to take out of the queue."""
        return bool(self.computed) or any(standing.mark is not None for standing in self.fresh)
