"""Cutting a cluster in parts that stay apart.

Finding the parts reads the cluster and computes without a transaction; putting them in place looks again whether the cluster
is still the one that was cut. Its faces are pinned where they are then, which every later run obeys. A cluster that was put
away can be cut as well; its parts stay away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.clustering.domain.model import ActiveModel, Cluster, ClusteringDeps, ClusterState
from services.clustering.grouping.linkage import (
    Cancelled,
    CutRequest,
    Labels,
    Report,
    cut_faces,
    cut_in_process,
    plan_cut_bytes,
)
from services.clustering.grouping.thresholds import ARCFACE_THRESHOLDS
from services.clustering.repository.clusters import get_clusters, get_unchanged, list_member_ids
from services.clustering.repository.locks import hold_faces, lock_clusters
from services.clustering.repository.matchers import with_learnt_space
from services.clustering.repository.memberships import (
    Figures,
    Membership,
    insert_clusters,
    refresh_clusters,
    write_figures,
    write_memberships,
)
from services.clustering.repository.parting import pin_members, stream_vectors
from services.clustering.repository.unassigned import find_active_model
from shared.child import watch_child
from shared.db.engine import Database, Transaction
from shared.db.outbox import queue_faces
from shared.errors import Contention, InvalidRequest, MemoryBudgetExceeded, NotFound
from shared.faces.embeddings import Vectors

MAX_NAMED: Final = 10_000
MAX_PARTS: Final = 100
# Of a cluster that is to be cut by a finer grouping; by given faces one of any size can be.
MAX_CUT_FACES: Final = 5000
# Up to so many a cut takes some 50 ms, and no process of its own.
CUT_HERE: Final = 1000

_MIB: Final = 1 << 20
_NO_PROGRESS_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class SplitCluster:
    """A cluster to cut: ``face_ids`` from the rest, else into ``target_count`` parts, else at the cosine ``tightness``, else as
    the faces suggest.
    """

    library_id: str
    cluster_id: str
    etag: str
    face_ids: Sequence[UUID] = ()
    target_count: int | None = None
    tightness: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """``face_ids`` best first, and their ``confidences``: the cosine to the part's centroid, 0 for a face without an embedding
    of the model. ``separation``: the cohesion less the cosine of the centroid to the nearest other part's; None without one.
    """

    face_ids: Sequence[UUID]
    confidences: Sequence[float]
    cohesion: float
    separation: float | None

    @property
    def medoid_face_id(self) -> UUID:
        """The face nearest to the centroid."""
        return self.face_ids[0]


@dataclass(frozen=True, slots=True)
class Parting:
    """A cluster's parts, largest first, in the space of a model."""

    model_version: str
    parts: Sequence[Part]


class ClusterCutter:
    """Cuts clusters, of the large ones one at a time, so that a server's memory has a bound."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def cut(self, request: CutRequest) -> Labels:
        """As :func:`cut_faces`, beside the event loop."""
        if len(request.vectors) <= CUT_HERE:
            return await asyncio.to_thread(cut_faces, request)

        def run(report: Report, cancelled: Cancelled) -> Labels:
            return cut_in_process(request, report, cancelled)

        async with self._turn:
            return await watch_child(run, _tell_nobody, _NO_PROGRESS_S)


async def find_parts(database: Database, deps: ClusteringDeps, cutter: ClusterCutter, command: SplitCluster) -> Parting:
    """The parts of a cluster; changes nothing. With no transaction open, since cutting takes a while.

    Faces without an embedding of the active model stay with the largest part, unless they are named. Raises
    :class:`ClusterChanged`, :class:`InvalidRequest` by field, :class:`MemoryBudgetExceeded` for a cluster of more than
    5,000 faces that is to be cut by a finer grouping, and :class:`PreconditionFailed` with ETAG_REQUIRED.
    """
    async with database.snapshot() as tx:
        await get_unchanged(tx, command.library_id, command.cluster_id, command.etag)
        model = await _find_model(tx, command)
        members = await list_member_ids(tx, command.library_id, command.cluster_id)
        live = [face_id for face_id, is_live in members.items() if is_live]
        if command.face_ids:
            labels = _part_named(command, live)
        else:
            _check_size(len(live))
            face_ids, vectors = await _read_vectors(tx, command, model)
    if not command.face_ids:
        cut = await cutter.cut(_make_request(deps, command, model, vectors))
        labels = dict.fromkeys(live, 0) | dict(zip(face_ids, cut.tolist(), strict=True))
    count = max(labels.values()) + 1
    if count > MAX_PARTS:
        raise InvalidRequest(f"tightness cuts it into {count} parts, more than {MAX_PARTS}", field="tightness")
    async with database.snapshot() as tx:
        return Parting(model.model_version, await _measure_parts(tx, command, model, labels))


async def store_parts(tx: Transaction, deps: ClusteringDeps, command: SplitCluster, parting: Parting) -> list[Cluster]:
    """Put the parts in place, and answer with them as clusters, in their order; one part changes nothing.

    The number of statements does not depend on that of faces. Raises :class:`ClusterChanged` if it is not the cluster any more
    that was cut, and :class:`Contention` if the library was moved to another model since.
    """
    await lock_clusters(tx, command.library_id)
    await hold_faces(tx, command.library_id, cluster_id=command.cluster_id)
    cluster = await get_unchanged(tx, command.library_id, command.cluster_id, command.etag)
    if len(parting.parts) == 1:
        return [cluster]
    active = await find_active_model(tx, command.library_id)
    if active is None or active.model_version != parting.model_version:
        raise Contention(f"the library's model was changed while a cluster was cut by '{parting.model_version}'")
    new_ids = [deps.ids.new_cluster_id() for _ in parting.parts[1:]]
    cluster_ids = [command.cluster_id, *new_ids]
    away = new_ids if cluster.state is ClusterState.DISMISSED else []
    await insert_clusters(tx, deps.clock, command.library_id, new_ids, active.model_version, cluster.run_id, away)
    memberships = [
        Membership(face_id, cluster_id, confidence)
        for cluster_id, part in zip(cluster_ids, parting.parts, strict=True)
        for face_id, confidence in zip(part.face_ids, part.confidences, strict=True)
    ]
    await write_memberships(tx, command.library_id, memberships, [])
    await pin_members(tx, [row.face_id for row in memberships])
    await refresh_clusters(tx, cluster_ids, cluster_ids, active.model_version, cluster.run_id, deps.clock.now())
    await write_figures(
        tx,
        [
            Figures(cluster_id, part.medoid_face_id, part.separation)
            for cluster_id, part in zip(cluster_ids, parting.parts, strict=True)
        ],
    )
    moved = [row.face_id for row in memberships if row.cluster_id != command.cluster_id]
    await queue_faces(tx, deps.clock, command.library_id, moved)
    stored = {found.cluster_id: found for found in await get_clusters(tx, command.library_id, cluster_ids)}
    return [stored[cluster_id] for cluster_id in cluster_ids]


async def _find_model(tx: Transaction, command: SplitCluster) -> ActiveModel:
    model = await find_active_model(tx, command.library_id)
    if model is None:
        raise NotFound("cluster", command.cluster_id)
    return await with_learnt_space(tx, command.library_id, model)


def _part_named(command: SplitCluster, live: Sequence[UUID]) -> dict[UUID, int]:
    """The named faces and the rest; of two of a size the rest is the first."""
    known = set(live)
    for index, face_id in enumerate(command.face_ids):
        if face_id not in known:
            field = f"face_ids[{index}]"
            raise InvalidRequest(f"{field}: face '{face_id}' is not in this cluster", field=field)
    named = set(command.face_ids)
    if len(named) == len(live):
        raise InvalidRequest("face_ids leaves no face behind", field="face_ids")
    largest = named if 2 * len(named) > len(live) else known - named
    return {face_id: 0 if face_id in largest else 1 for face_id in live}


def _check_size(faces: int) -> None:
    if faces <= MAX_CUT_FACES:
        return
    needed, budget = (-(-plan_cut_bytes(count) // _MIB) for count in (faces, MAX_CUT_FACES))
    raise MemoryBudgetExceeded(
        f"a cluster of {faces} faces, more than {MAX_CUT_FACES}, cannot be cut by a finer grouping: name faces",
        metadata={"needed_mb": str(needed), "budget_mb": str(budget)},
    )


async def _read_vectors(tx: Transaction, command: SplitCluster, model: ActiveModel) -> tuple[list[UUID], Vectors]:
    face_ids: list[UUID] = []
    blocks: list[Vectors] = [np.empty((0, _dimension(model)), dtype=np.float32)]
    async for ids, vectors in stream_vectors(tx, command.library_id, command.cluster_id, model):
        face_ids += ids
        blocks.append(vectors)
    return face_ids, np.concatenate(blocks)


def _make_request(deps: ClusteringDeps, command: SplitCluster, model: ActiveModel, vectors: Vectors) -> CutRequest:
    if command.tightness is not None:
        return CutRequest(vectors, cosine=command.tightness, alone=True)
    if command.target_count is not None:
        return CutRequest(vectors, count=command.target_count)
    return CutRequest(vectors, count=MAX_PARTS, cosine=_suggest_cosine(deps, model))


def _suggest_cosine(deps: ClusteringDeps, model: ActiveModel) -> float:
    """At or below it two groups are not one of their own accord: what a face is not attached at, less the margin."""
    attach, margin = (
        next(value for value in (chosen, model.thresholds.get(name), usual) if value is not None)
        for name, chosen, usual in (
            ("attach", deps.settings.attach, ARCFACE_THRESHOLDS.attach),
            ("attach_margin", deps.settings.attach_margin, ARCFACE_THRESHOLDS.attach_margin),
        )
    )
    return model.learnt.carry(attach - margin) if model.learnt else attach - margin


async def _measure_parts(
    tx: Transaction, command: SplitCluster, model: ActiveModel, labels: Mapping[UUID, int]
) -> list[Part]:
    """Figures of the parts, in two passes, so that no more than a slice of the vectors is held.

    A face that came into the cluster since it was cut is passed over: putting the parts in place will see it.
    """
    centroids = np.zeros((max(labels.values()) + 1, _dimension(model)))
    async for rows, vectors in _stream_labelled(tx, command, model, labels):
        np.add.at(centroids, [label for _, label in rows], vectors)
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    np.divide(centroids, lengths, out=centroids, where=lengths > 0)
    confidences = dict.fromkeys(labels, 0.0)
    async for rows, vectors in _stream_labelled(tx, command, model, labels):
        cosines = np.einsum("nd,nd->n", vectors, centroids[[label for _, label in rows]])
        confidences |= dict(zip((face_id for face_id, _ in rows), cosines.tolist(), strict=True))
    members: list[list[UUID]] = [[] for _ in centroids]
    for face_id, label in labels.items():
        members[label].append(face_id)
    nearest = _find_nearest(centroids)
    return [
        _make_part(part, confidences, None if nearest is None else float(nearest[label]))
        for label, part in enumerate(members)
    ]


async def _stream_labelled(
    tx: Transaction, command: SplitCluster, model: ActiveModel, labels: Mapping[UUID, int]
) -> AsyncIterator[tuple[list[tuple[UUID, int]], Vectors]]:
    async for face_ids, vectors in stream_vectors(tx, command.library_id, command.cluster_id, model):
        known = [face_id in labels for face_id in face_ids]
        rows = [(face_id, labels[face_id]) for face_id, is_known in zip(face_ids, known, strict=True) if is_known]
        yield rows, vectors[np.array(known, dtype=np.bool_)]


def _find_nearest(centroids: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """The cosine of each unit row (K, D) to the nearest other one (K,); None if there is no other."""
    if len(centroids) == 1:
        return None
    cosines = centroids @ centroids.T
    np.fill_diagonal(cosines, -1.0)
    return np.asarray(cosines.max(axis=1))


def _make_part(face_ids: Sequence[UUID], confidences: Mapping[UUID, float], nearest: float | None) -> Part:
    best_first = sorted(face_ids, key=lambda face_id: (-confidences[face_id], face_id))
    values = [confidences[face_id] for face_id in best_first]
    cohesion = sum(values) / len(values)
    return Part(best_first, values, cohesion, None if nearest is None else cohesion - nearest)


def _dimension(model: ActiveModel) -> int:
    return model.learnt.projection.dimension if model.learnt else model.dimension


async def _tell_nobody(progress: object) -> None:
    """A cut says nothing on its way."""
