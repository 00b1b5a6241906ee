"""Placing new faces beside groups there are, without grouping everything again.

Only what the new faces touch is formed anew: they themselves and the ungrouped faces near them, and those near these. What
comes of that merges and attaches by the same steps as in a full run, held against the groups there are; a group that gained
faces may so merge with another. No group is parted: that is for a full run. Finding the neighbours of m new faces among N costs
one product of m x N x D; the rest grows with what is touched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.constraints import FREE, apply_anchors
from services.clustering.grouping.graph import MISSING, NeighbourGraph
from services.clustering.grouping.increment_request import IncrementRequest, IncrementResult
from services.clustering.grouping.measures import find_medoids, gather_centroids
from services.clustering.grouping.merge import Groups
from services.clustering.grouping.neighbours import build_neighbour_graph, find_neighbours_of
from services.clustering.grouping.pipeline import Run, form_first_groups, merge_and_attach
from services.clustering.grouping.request import Cancelled, GroupingRequest, Phase, Report
from services.clustering.grouping.sums import sum_groups
from services.clustering.grouping.thresholds import Thresholds
from services.clustering.grouping.vectors import BetweenBlocks, split_rows, take_rows
from shared.errors import InvalidRequest
from shared.faces.embeddings import Vectors

Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

MOST_POOLED: Final = 20_000
"""Ungrouped faces that are formed anew at most; of more, those nearest to a new face."""


def place_faces(request: IncrementRequest, report: Report, cancelled: Cancelled) -> IncrementResult:
    """Place the new faces. CPU-bound: call it in its own process. Progress and errors as of :func:`group_faces`."""
    faces, run = request.faces, Run(report, cancelled)
    thresholds = faces.pack_thresholds
    if thresholds is None:
        raise InvalidRequest("an increment needs the thresholds of the last full run", field="pack_thresholds")
    if request.homes.shape != request.new.shape or len(request.homes) != len(faces.vectors):
        raise InvalidRequest("every face needs its group, and whether it is new", field="homes")
    assets = np.unique(faces.assets, return_inverse=True)[1].astype(np.int64)
    anchors = _keep_away_apart(request)

    with run.phase(Phase.NEIGHBOURS) as between_blocks:
        near = _find_near(request, thresholds, between_blocks)
        pool = _choose_pool(request, near, min(thresholds.link_floor, thresholds.attach), between_blocks)
        graph = _join_graphs(request, near, pool, thresholds, between_blocks)
    with run.phase(Phase.FORM) as between_blocks:
        groups = _form_pool(request, pool, anchors, thresholds, between_blocks)
    if faces.merge_and_attach:
        groups, _, _ = merge_and_attach(run, faces, graph, groups, assets, anchors, thresholds)
    with run.phase(Phase.MEASURE) as between_blocks:
        return _tell_changes(request, groups, len(pool), run.seconds, between_blocks)


def _keep_away_apart(request: IncrementRequest) -> Ints:
    """Anchors (N,) of the faces, and one more for each group that was put away."""
    anchors = np.full(len(request.homes), FREE, dtype=np.int32)
    if request.faces.anchors is not None:
        anchors[:] = request.faces.anchors
    put_away = (request.homes >= 0) & request.away[request.homes] if len(request.away) else np.zeros_like(request.new)
    anchors[put_away] = request.homes[put_away] + anchors.max(initial=FREE) + 1
    return anchors


def _find_near(request: IncrementRequest, thresholds: Thresholds, between_blocks: BetweenBlocks) -> NeighbourGraph:
    """The neighbours of the new faces among all, without themselves."""
    faces = request.faces
    rows = np.flatnonzero(request.new).astype(np.int32)
    found = find_neighbours_of(
        take_rows(faces.vectors, rows),
        faces.vectors,
        k=min(faces.sizes.neighbours + 1, len(faces.vectors)),
        floor=thresholds.knn_floor,
        threads=faces.sizes.threads,
        between_blocks=between_blocks,
    )
    return _drop_self(found, rows, faces.sizes.neighbours)


def _drop_self(graph: NeighbourGraph, rows: Ints, k: int) -> NeighbourGraph:
    """Without the row itself, ``k`` wide."""
    own = graph.neighbours == rows[:, None]
    # A stable sort by "is itself or missing" moves both to the end and leaves the others in their order.
    order = np.argsort(own | (graph.neighbours < 0), axis=1, kind="stable")
    neighbours = np.where(own, MISSING, graph.neighbours)
    similarities = np.where(own, np.float32(graph.floor), graph.similarities)
    return NeighbourGraph(
        np.take_along_axis(neighbours, order, axis=1)[:, :k].astype(np.int32),
        np.take_along_axis(similarities, order, axis=1)[:, :k],
        graph.floor,
    )


def _choose_pool(
    request: IncrementRequest, near: NeighbourGraph, reach: float, between_blocks: BetweenBlocks
) -> npt.NDArray[np.int64]:
    """Rows to form anew, sorted: new faces, the ungrouped ones within ``reach`` of them, and those within reach of these."""
    faces = request.faces
    old_noise = (request.homes < 0) & ~request.new
    close = (near.neighbours >= 0) & (near.similarities > reach)
    first = _nearest_first(near, close & old_noise[near.neighbours])[:MOST_POOLED]
    rows = np.flatnonzero(old_noise)
    if len(first) and len(rows):
        second = find_neighbours_of(
            take_rows(faces.vectors, first),
            faces.vectors[rows],
            k=min(faces.sizes.neighbours, len(rows)),
            floor=reach,
            threads=faces.sizes.threads,
            between_blocks=between_blocks,
        )
        further = rows[_nearest_first(second, second.neighbours >= 0)]
        first = np.unique(np.concatenate([first, further[:MOST_POOLED]]))
    return np.sort(np.concatenate([np.flatnonzero(request.new), first]))


def _nearest_first(graph: NeighbourGraph, wanted: Flags) -> npt.NDArray[np.int64]:
    """Distinct wanted neighbours, the one with the highest cosine to anybody first."""
    found, cosines = graph.neighbours[wanted], graph.similarities[wanted]
    found = found[np.argsort(-cosines, kind="stable")]
    _, firsts = np.unique(found, return_index=True)
    return found[np.sort(firsts)].astype(np.int64)


def _join_graphs(
    request: IncrementRequest,
    near: NeighbourGraph,
    pool: npt.NDArray[np.int64],
    thresholds: Thresholds,
    between_blocks: BetweenBlocks,
) -> NeighbourGraph:
    """A graph of all rows in which only those of the pool have neighbours: the new ones among all, the others in the pool."""
    count, k = len(request.homes), request.faces.sizes.neighbours
    neighbours = np.full((count, k), MISSING, dtype=np.int32)
    similarities = np.full((count, k), thresholds.knn_floor, dtype=np.float32)
    others = pool[~request.new[pool]]
    if len(others):
        among = find_neighbours_of(
            take_rows(request.faces.vectors, others),
            take_rows(request.faces.vectors, pool),
            k=min(k + 1, len(pool)),
            floor=thresholds.knn_floor,
            threads=request.faces.sizes.threads,
            between_blocks=between_blocks,
        )
        places = np.searchsorted(pool, others).astype(np.int32)
        found = _drop_self(among, places, k)
        width = found.neighbours.shape[1]
        neighbours[others, :width] = np.where(found.neighbours >= 0, pool[found.neighbours], MISSING)
        similarities[others, :width] = found.similarities
    rows = np.flatnonzero(request.new)
    width = near.neighbours.shape[1]
    neighbours[rows, :width], similarities[rows, :width] = near.neighbours, near.similarities
    return NeighbourGraph(neighbours, similarities, thresholds.knn_floor)


def _form_pool(
    request: IncrementRequest,
    pool: npt.NDArray[np.int64],
    anchors: Ints,
    thresholds: Thresholds,
    between_blocks: BetweenBlocks,
) -> Groups:
    """The groups there are, and behind them those formed of the pool; only the latter count as changed."""
    faces = request.faces
    labels = request.homes.copy()
    known = int(labels.max(initial=-1)) + 1
    labels[pool] = _form(request, pool, thresholds, between_blocks)
    labels[pool] += np.where(labels[pool] >= 0, known, 0).astype(np.int32)
    sums = sum_groups(faces.vectors, labels, between_blocks)
    changed = np.arange(len(sums)) >= known
    return Groups(labels, sums, changed, np.empty((0, 2), dtype=np.int32))


def _form(
    request: IncrementRequest, pool: npt.NDArray[np.int64], thresholds: Thresholds, between_blocks: BetweenBlocks
) -> Ints:
    """First groups (P,) of the faces in the pool alone, by the algorithm of the full run."""
    faces = request.faces
    vectors = take_rows(faces.vectors, pool)
    if len(pool) == 0:
        return np.empty(0, dtype=np.int32)
    # However few they are, they are part of something larger: no library that takes them for all there is.
    sizes = replace(faces.sizes, small_set=0)
    graph, _ = build_neighbour_graph(
        vectors,
        k=max(1, min(sizes.neighbours, len(pool) - 1)),
        floor=thresholds.knn_floor,
        sizes=sizes,
        between_blocks=between_blocks,
    )
    part = GroupingRequest(vectors, faces.assets[pool], faces.quality[pool], algorithm=faces.algorithm, sizes=sizes)
    seeds = np.asarray(part.quality) >= faces.seed_floor
    assets = np.unique(part.assets, return_inverse=True)[1].astype(np.int64)
    formed = form_first_groups(part, graph, seeds, assets, thresholds)
    free = np.full(len(pool), FREE, dtype=np.int32) if faces.anchors is None else np.asarray(faces.anchors[pool])
    return apply_anchors(vectors, formed, free, between_blocks)


def _tell_changes(
    request: IncrementRequest, groups: Groups, pooled: int, seconds: dict[str, float], between_blocks: BetweenBlocks
) -> IncrementResult:
    labels, homes = groups.labels, request.homes
    count = len(groups.sums)
    origins = _find_origins(labels, homes, count)
    # Where one that was put away and one that was not became one, the smaller stays as it was.
    away = np.append(request.away, False)
    stays = (labels >= 0) & (homes >= 0) & (away[homes] != away[origins[labels]])
    labels = np.where(stays, -1, labels).astype(np.int32)
    moved = (labels >= 0) & ((homes < 0) | (origins[labels] != homes))
    changed = np.zeros(count, dtype=np.bool_)
    changed[labels[moved]] = True
    names = np.full(count + 1, -1, dtype=np.int32)
    names[:count][changed] = np.arange(int(changed.sum()), dtype=np.int32)
    found = names[labels]
    number = int(changed.sum())
    vectors = request.faces.vectors
    centroids, confidence = gather_centroids(vectors, found, number, between_blocks)
    medoids, cohesions = find_medoids(found, confidence, number)
    separations = _measure_separations(centroids, cohesions, groups.sums, np.flatnonzero(changed))
    return IncrementResult(found, origins[changed], confidence, medoids, separations, pooled, seconds)


def _find_origins(labels: Ints, homes: Ints, count: int) -> Ints:
    """For each group 0..count-1 the group of before with most faces in it, of equals the lower; -1 without one."""
    both = (labels >= 0) & (homes >= 0)
    width = np.int64(homes.max(initial=-1)) + 1
    origins = np.full(count, -1, dtype=np.int32)
    if width == 0 or not both.any():
        return origins
    cells, sizes = np.unique(labels[both].astype(np.int64) * width + homes[both], return_counts=True)
    order = np.lexsort((-cells, sizes))
    origins[cells[order] // width] = cells[order] % width
    return origins


def _measure_separations(
    centroids: Vectors, cohesions: npt.NDArray[np.float32], sums: Vectors, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """(K,) cohesion less the cosine of the centroid to the nearest other group's; NaN without one."""
    if len(sums) < 2:
        return np.full(len(rows), np.nan, dtype=np.float32)
    units = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-9))
    nearest = np.empty(len(rows), dtype=np.float32)
    for part in split_rows(len(rows), 512):
        cosines = centroids[part] @ units.T
        cosines[np.arange(len(cosines)), rows[part]] = -2.0
        nearest[part] = cosines.max(axis=1)
    return cohesions - nearest
