"""One grouping from start to end: neighbours, first groups, merge, attach, merge, measure.

The first groups are pure but torn (pairwise recall 0.55-0.8 on generated collections); merging and attaching
by centroids is what makes one group of a person (0.95 and more, at a precision of 0.99).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.alternatives import form_agglomerative, form_dbscan
from services.clustering.grouping.attach import attach_faces
from services.clustering.grouping.forest import form_groups
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.merge import merge_groups
from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.plan import check_memory, plan_memory
from services.clustering.grouping.request import (
    Algorithm,
    Cancelled,
    GroupingCancelled,
    GroupingMetrics,
    GroupingRequest,
    GroupingResult,
    Labels,
    Phase,
    Progress,
    Report,
)
from services.clustering.grouping.small import form_small_agglomerative, form_small_dbscan, form_small_hdbscan
from services.clustering.grouping.thresholds import Thresholds, resolve_thresholds
from shared.errors import InvalidRequest
from shared.faces.centroid import compute_centroids
from shared.faces.embeddings import Vectors

_NORM_TOLERANCE = 1e-2
_SLICE_ROWS = 2048


def group_faces(request: GroupingRequest, report: Report, cancelled: Cancelled) -> GroupingResult:
    """Group the faces of a request. CPU-bound: call it in its own process (:mod:`process`).

    ``report`` is told of progress; ``cancelled`` is asked between blocks and phases. The same request gives
    the same result on the same machine. Raises :class:`InvalidRequest` for arrays that do not fit together,
    :class:`PreconditionFailed` (MEMORY_BUDGET) before anything is begun, and :class:`GroupingCancelled`.
    """
    _check_request(request)
    vectors = np.ascontiguousarray(request.vectors, dtype=np.float32)
    plan = plan_memory(len(vectors), vectors.shape[1], request.algorithm, request.sizes)
    check_memory(plan, request.sizes.memory_budget_mb)
    run = _Run(report, cancelled)
    thresholds = resolve_thresholds(vectors, request.pack_thresholds, request.overrides)
    assets = np.unique(request.assets, return_inverse=True)[1].astype(np.int64)
    seeds = np.asarray(request.quality) >= request.seed_floor
    sizes = request.sizes

    with run.phase(Phase.NEIGHBOURS) as between_blocks:
        graph = build_neighbour_graph(
            vectors,
            k=max(1, min(sizes.neighbours, len(vectors) - 1)),
            floor=thresholds.knn_floor,
            block_rows=sizes.block_rows,
            threads=sizes.threads,
            between_blocks=between_blocks,
        )
    with run.phase(Phase.FORM):
        labels = _form_first_groups(request, vectors, graph, seeds, assets, thresholds)
    with run.phase(Phase.MERGE):
        first = merge_groups(vectors, labels, assets, threshold=thresholds.merge, veto_share=sizes.veto_share)
    with run.phase(Phase.ATTACH):
        attached = attach_faces(
            vectors,
            graph.neighbours,
            first.labels,
            assets,
            threshold=thresholds.attach,
            margin=thresholds.attach_margin,
        )
    with run.phase(Phase.MERGE):
        last = merge_groups(vectors, attached, assets, threshold=thresholds.merge, veto_share=sizes.veto_share)
    with run.phase(Phase.MEASURE):
        labels = order_by_size(last.labels)
        groups = int(labels.max(initial=-1)) + 1
        centroids = compute_centroids(vectors, labels, groups).vectors
        confidence = measure_confidence(vectors, labels, centroids)
    grouped = labels >= 0
    metrics = GroupingMetrics(
        faces=len(vectors),
        clusters=groups,
        noise=int((~grouped).sum()),
        seeds=int(seeds.sum()),
        merged=first.merges + last.merges,
        attached=int(((first.labels < 0) & (attached >= 0)).sum()),
        vetoed=last.vetoed,
        largest=int(np.bincount(labels[grouped], minlength=1).max()),
        cohesion=float(confidence[grouped].mean()) if groups else 0.0,
        peak_bytes=plan.peak,
        seconds=run.seconds,
    )
    return GroupingResult(labels, confidence, centroids, thresholds, metrics)


def order_by_size(labels: Labels) -> Labels:
    """Renumber groups 0..K-1 from the largest to the smallest; among equals the one with the smallest row
    comes first.
    """
    groups = int(labels.max(initial=-1)) + 1
    if groups == 0:
        return labels
    grouped = np.flatnonzero(labels >= 0)
    sizes = np.bincount(labels[grouped], minlength=groups)
    _, firsts = np.unique(labels[grouped], return_index=True)
    order = np.lexsort((firsts, -sizes))
    names = np.empty(groups, dtype=np.int32)
    names[order] = np.arange(groups, dtype=np.int32)
    return np.where(labels >= 0, names[labels], labels).astype(np.int32)


def measure_confidence(vectors: Vectors, labels: Labels, centroids: Vectors) -> npt.NDArray[np.float32]:
    """Cosine (N,) of each face to the centroid of its own group, clipped to 0..1; 0 for noise."""
    confidence = np.zeros(len(labels), dtype=np.float32)
    rows = np.flatnonzero(labels >= 0)
    for start in range(0, len(rows), _SLICE_ROWS):
        part = rows[start : start + _SLICE_ROWS]
        confidence[part] = np.einsum("nd,nd->n", vectors[part], centroids[labels[part]])
    return np.clip(confidence, 0.0, 1.0)


def _form_first_groups(
    request: GroupingRequest,
    vectors: Vectors,
    graph: NeighbourGraph,
    seeds: npt.NDArray[np.bool_],
    assets: npt.NDArray[np.int64],
    thresholds: Thresholds,
) -> Labels:
    sizes = request.sizes
    small = len(vectors) <= sizes.small_set
    match request.algorithm:
        case Algorithm.HDBSCAN if small:
            return form_small_hdbscan(
                vectors,
                graph,
                seeds,
                thresholds,
                min_cluster_size=sizes.min_cluster_size,
                min_samples=sizes.min_samples,
            )
        case Algorithm.HDBSCAN:
            return form_groups(
                graph,
                seeds,
                link_floor=thresholds.link_floor,
                min_cluster_size=sizes.min_cluster_size,
                min_samples=sizes.min_samples,
            )
        case Algorithm.DBSCAN if small:
            return form_small_dbscan(vectors, seeds, radius=thresholds.merge, min_samples=sizes.min_samples)
        case Algorithm.DBSCAN:
            return form_dbscan(graph, seeds, radius=thresholds.merge, min_samples=sizes.min_samples)
        case Algorithm.AGGLOMERATIVE if small:
            return form_small_agglomerative(
                vectors, seeds, threshold=thresholds.link_floor, min_cluster_size=sizes.min_cluster_size
            )
        case Algorithm.AGGLOMERATIVE:
            return form_agglomerative(
                vectors,
                graph,
                seeds,
                assets,
                threshold=thresholds.merge,
                min_cluster_size=sizes.min_cluster_size,
                veto_share=sizes.veto_share,
            )


def _check_request(request: GroupingRequest) -> None:
    vectors, sizes = request.vectors, request.sizes
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise InvalidRequest(f"vectors must be (N, D), not {vectors.shape}", field="vectors")
    if request.assets.shape != (len(vectors),) or request.quality.shape != (len(vectors),):
        raise InvalidRequest("every vector needs one asset and one quality", field="assets")
    if min(sizes.neighbours, sizes.block_rows, sizes.threads, sizes.min_samples) < 1 or sizes.min_cluster_size < 2:
        raise InvalidRequest("sizes must be at least 1, min_cluster_size at least 2", field="sizes")
    squares = np.einsum("nd,nd->n", vectors, vectors)
    if not (np.abs(squares - 1.0) < _NORM_TOLERANCE).all():
        raise InvalidRequest("vectors must have unit length", field="vectors")


class _Run:
    """Progress, cancellation and seconds of one grouping."""

    def __init__(self, report: Report, cancelled: Cancelled) -> None:
        self._report = report
        self._cancelled = cancelled
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[Callable[[int, int], None]]:
        """Time a phase; yields what its loops call between blocks."""

        def between_blocks(done: int, total: int) -> None:
            if self._cancelled():
                raise GroupingCancelled
            self._report(Progress(phase, done, total))

        between_blocks(0, 1)
        started = time.perf_counter()
        yield between_blocks
        self.seconds[phase.value] = self.seconds.get(phase.value, 0.0) + time.perf_counter() - started
        between_blocks(1, 1)
