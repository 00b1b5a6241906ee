"""One grouping from start to end: neighbours, first groups, merge, attach, merge, measure.

The first groups are pure but torn (pairwise recall 0.55-0.8 on generated collections); merging and attaching
by centroids is what makes one group of a person (0.95 and more, at a precision of 0.99).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.alternatives import form_agglomerative, form_dbscan
from services.clustering.grouping.attach import attach_faces
from services.clustering.grouping.constraints import FREE, apply_anchors
from services.clustering.grouping.forest import form_groups
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.measures import (
    measure_groups,
    measure_peak_bytes,
    measure_silhouette,
    measure_validity,
)
from services.clustering.grouping.merge import Groups, gather_groups, merge_groups
from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.plan import check_memory, plan_memory
from services.clustering.grouping.request import (
    Algorithm,
    Cancelled,
    GraphMethod,
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
from services.clustering.grouping.vectors import BetweenBlocks, split_rows, take_rows
from shared.errors import InvalidRequest
from shared.faces.embeddings import Vectors

_NORM_TOLERANCE = 1e-2


def group_faces(request: GroupingRequest, report: Report, cancelled: Cancelled) -> GroupingResult:
    """Group the faces of a request. CPU-bound: call it in its own process (:mod:`process`).

    ``report`` is told of progress; ``cancelled`` is asked between blocks and phases. The same request gives
    the same result on the same machine. Raises :class:`InvalidRequest` for arrays that do not fit together,
    :class:`MemoryBudgetExceeded` before anything is begun, and :class:`GroupingCancelled`.
    """
    _check_request(request)
    vectors, sizes = request.vectors, request.sizes
    faces, dimension = vectors.shape
    method, number_bytes = request.graph_method, vectors.dtype.itemsize
    plan = plan_memory(faces, dimension, request.algorithm, sizes, method, number_bytes=number_bytes)
    check_memory(plan, sizes.memory_budget_mb)
    run = Run(report, cancelled)
    thresholds = resolve_thresholds(vectors, request.pack_thresholds, request.overrides)
    assets = np.unique(request.assets, return_inverse=True)[1].astype(np.int64)
    anchors = np.full(len(vectors), FREE, dtype=np.int32) if request.anchors is None else request.anchors
    seeds = np.asarray(request.quality) >= request.seed_floor

    with run.phase(Phase.NEIGHBOURS) as between_blocks:
        graph, found_by = _find_neighbours(request, thresholds, between_blocks)
    with run.phase(Phase.FORM) as between_blocks:
        formed = form_first_groups(request, graph, seeds, assets, thresholds)
        labels = apply_anchors(vectors, formed, anchors, between_blocks)
    with run.phase(Phase.MERGE) as between_blocks:
        groups = gather_groups(vectors, labels, between_blocks)
    merged = attached = 0
    if request.merge_and_attach:
        groups, merged, attached = merge_and_attach(run, request, graph, groups, assets, anchors, thresholds)
    vetoed = len(groups.vetoed)
    with run.phase(Phase.MEASURE) as between_blocks:
        labels, sums = order_by_size(groups.labels, groups.sums)
        del groups, graph
        silhouette = measure_silhouette(vectors, labels, sums)
        del sums
        figures = measure_groups(vectors, labels, sizes, between_blocks)
        validity = measure_validity(vectors, labels, figures.nearest)
    grouped = labels >= 0
    members = np.bincount(labels[grouped])
    metrics = GroupingMetrics(
        faces=faces,
        clusters=len(members),
        noise=int((~grouped).sum()),
        seeds=int(seeds.sum()),
        merged=merged,
        attached=attached,
        vetoed=vetoed,
        largest=int(members.max(initial=0)),
        median_size=float(np.median(members)) if len(members) else 0.0,
        cohesion=float(figures.confidence[grouped].mean()) if len(members) else 0.0,
        separation=_average_separation(figures.separations, members),
        silhouette=silhouette,
        validity=validity,
        graph_method=found_by,
        planned_bytes=plan.peak,
        peak_bytes=measure_peak_bytes(),
        seconds=run.seconds,
    )
    return GroupingResult(
        labels=labels,
        confidence=figures.confidence,
        centroids=figures.centroids,
        medoids=figures.medoids,
        cohesions=figures.cohesions,
        separations=figures.separations,
        thresholds=thresholds,
        metrics=metrics,
    )


def order_by_size(labels: Labels, sums: Vectors) -> tuple[Labels, Vectors]:
    """Renumber groups 0..K-1 from the largest to the smallest, and their ``sums`` (K, D) with them; among equals the one with
    the smallest row comes first.
    """
    groups = len(sums)
    if groups == 0:
        return labels, sums
    grouped = np.flatnonzero(labels >= 0)
    sizes = np.bincount(labels[grouped], minlength=groups)
    _, firsts = np.unique(labels[grouped], return_index=True)
    order = np.lexsort((firsts, -sizes))
    names = np.empty(groups, dtype=np.int32)
    names[order] = np.arange(groups, dtype=np.int32)
    return np.where(labels >= 0, names[labels], labels).astype(np.int32), sums[order]


def merge_and_attach(
    run: Run,
    request: GroupingRequest,
    graph: NeighbourGraph,
    groups: Groups,
    assets: npt.NDArray[np.int64],
    anchors: npt.NDArray[np.int32],
    thresholds: Thresholds,
) -> tuple[Groups, int, int]:
    """Merge ``groups``, attach noise, and merge again; the groups, merges made, and faces attached.

    ``assets`` (N,) are 0..A-1, ``anchors`` (N,) as in the request with -1 for free. Only groups that are ``changed`` are held
    against the others.
    """

    def merge(groups: Groups) -> tuple[Groups, int]:
        with run.phase(Phase.MERGE) as between_blocks:
            return merge_groups(
                groups,
                assets,
                anchors,
                threshold=thresholds.merge,
                sizes=request.sizes,
                between_blocks=between_blocks,
            )

    groups, before = merge(groups)
    noise = int((groups.labels < 0).sum())
    with run.phase(Phase.ATTACH) as between_blocks:
        groups = attach_faces(
            request.vectors,
            graph.neighbours,
            groups,
            assets,
            threshold=thresholds.attach,
            margin=thresholds.attach_margin,
            between_blocks=between_blocks,
        )
    attached = noise - int((groups.labels < 0).sum())
    groups, after = merge(groups)
    return groups, before + after, attached


def _find_neighbours(
    request: GroupingRequest, thresholds: Thresholds, between_blocks: BetweenBlocks
) -> tuple[NeighbourGraph, GraphMethod | None]:
    if request.graph is not None:
        return request.graph, None
    return build_neighbour_graph(
        request.vectors,
        k=max(1, min(request.sizes.neighbours, len(request.vectors) - 1)),
        floor=thresholds.knn_floor,
        sizes=request.sizes,
        between_blocks=between_blocks,
        method=request.graph_method,
        checkpoint=request.checkpoint,
    )


def _average_separation(separations: npt.NDArray[np.float32], members: npt.NDArray[np.integer]) -> float:
    known = np.isfinite(separations)
    return float(np.average(separations[known], weights=members[known])) if known.any() else 0.0


def form_first_groups(
    request: GroupingRequest,
    graph: NeighbourGraph,
    seeds: npt.NDArray[np.bool_],
    assets: npt.NDArray[np.int64],
    thresholds: Thresholds,
) -> Labels:
    """The groups (N,; 0..K-1, -1 noise) the algorithm of the request makes of its ``graph``, before anchors and merging.

    With a link floor of -1 nothing is cut off: that is HDBSCAN as published, to which everything together is no group.
    """
    vectors, sizes = request.vectors, request.sizes
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
                roots_are_groups=thresholds.link_floor > -1.0,
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
    if request.anchors is not None and request.anchors.shape != (len(vectors),):
        raise InvalidRequest("every vector needs an anchor, or none any", field="anchors")
    if request.graph is not None and len(request.graph.neighbours) != len(vectors):
        raise InvalidRequest("a given graph must be of the same faces", field="graph")
    if min(sizes.neighbours, sizes.block_rows, sizes.threads, sizes.min_samples) < 1 or sizes.min_cluster_size < 2:
        raise InvalidRequest("sizes must be at least 1, min_cluster_size at least 2", field="sizes")
    for part in split_rows(len(vectors)):
        rows = take_rows(vectors, part)
        wrong = np.flatnonzero(~(np.abs(np.einsum("nd,nd->n", rows, rows) - 1.0) < _NORM_TOLERANCE))
        if len(wrong):
            raise InvalidRequest(f"vectors must have unit length, row {part.start + wrong[0]} has not", field="vectors")


class Run:
    """Progress, cancellation and seconds of one grouping."""

    def __init__(self, report: Report, cancelled: Cancelled) -> None:
        self._report = report
        self._cancelled = cancelled
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[BetweenBlocks]:
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
