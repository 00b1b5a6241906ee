"""One run of ClusterFaces: read the unassigned faces, group them, put the groups in place.

Reading and storing are use cases on a transaction; grouping lies between them, without one, in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.clustering.domain.model import ActiveModel, ClusteringDeps, ClusterMode, ClusterRun
from services.clustering.grouping.plan import check_memory, plan_memory
from services.clustering.grouping.request import Algorithm, GroupingRequest, GroupingResult, GroupingSizes
from services.clustering.grouping.stable_ids import keep_cluster_ids
from services.clustering.grouping.thresholds import (
    ARCFACE_THRESHOLDS,
    CALIBRATION_FACES,
    ThresholdOverrides,
    Thresholds,
)
from services.clustering.repository.locks import hold_faces, lock_clusters
from services.clustering.repository.matchers import find_learnt_space
from services.clustering.repository.memberships import (
    Membership,
    clear_assigned,
    insert_clusters,
    read_memberships,
    refresh_clusters,
    write_memberships,
)
from services.clustering.repository.runs import insert_run
from services.clustering.repository.unassigned import (
    FaceSelection,
    FaceTable,
    count_unassigned,
    find_active_model,
    read_unassigned,
)
from shared.db.engine import Transaction
from shared.db.long_work import allow_long_work
from shared.db.outbox import queue_faces
from shared.errors import Contention
from shared.faces.projection import LearntSpace

THRESHOLDS = ("knn_floor", "link_floor", "merge", "attach", "attach_margin")


@dataclass(frozen=True, slots=True)
class ClusterFaces:
    """What a run is to group, and how."""

    library_id: str
    algorithm: Algorithm
    selection: FaceSelection
    min_cluster_size: int
    mode: ClusterMode = ClusterMode.UNSUPERVISED

    def describe(self) -> dict[str, Any]:
        """As the job keeps it."""
        where = self.selection
        return {
            "mode": self.mode.value,
            "algorithm": self.algorithm.value,
            "captured_from": where.captured_from.isoformat() if where.captured_from else None,
            "captured_before": where.captured_before.isoformat() if where.captured_before else None,
            "min_quality": where.min_quality,
            "min_cluster_size": self.min_cluster_size,
        }

    @classmethod
    def parse(cls, library_id: str, spec: Mapping[str, Any]) -> ClusterFaces:
        """From what :meth:`describe` made."""

        def moment(name: str) -> datetime | None:
            return datetime.fromisoformat(spec[name]) if spec[name] else None

        return cls(
            library_id=library_id,
            algorithm=Algorithm(spec["algorithm"]),
            selection=FaceSelection(moment("captured_from"), moment("captured_before"), spec["min_quality"]),
            min_cluster_size=spec["min_cluster_size"],
            mode=ClusterMode(spec["mode"]),
        )


@dataclass(frozen=True, slots=True)
class Grouping:
    """Faces, and the groups they were found to be in; ``result`` is None where there were no faces."""

    faces: FaceTable
    model_version: str
    result: GroupingResult | None
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Placement:
    """A grouping held against the present: who stays in the groups, and under which id."""

    memberships: Sequence[Membership]
    ungrouped: Sequence[UUID]
    changed_faces: Sequence[UUID]
    changed_clusters: Sequence[str]
    cluster_ids: Sequence[str]
    new_ids: Sequence[str]
    touched: Sequence[str]
    faces: int
    kept: int


async def read_faces(
    tx: Transaction, deps: ClusteringDeps, command: ClusterFaces
) -> tuple[ActiveModel | None, FaceTable]:
    """The faces to group, in a snapshot; an empty table for a library without a model.

    Raises :class:`PreconditionFailed` with MEMORY_BUDGET before reading more than grouping may hold.
    """
    model = await find_active_model(tx, command.library_id)
    count = await count_unassigned(tx, command.library_id, model, command.selection) if model is not None else 0
    if model is None or count == 0:
        nothing = np.empty((0, model.dimension if model else 0), dtype=np.float32)
        return model, FaceTable([], nothing, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    sizes = choose_sizes(deps, command)
    check_memory(plan_memory(count, model.dimension, command.algorithm, sizes), sizes.memory_budget_mb)
    model = replace(model, learnt=await find_learnt_space(tx, command.library_id, model.model_version))
    return model, await read_unassigned(tx, command.library_id, model, command.selection, count)


def build_request(deps: ClusteringDeps, command: ClusterFaces, model: ActiveModel, faces: FaceTable) -> GroupingRequest:
    """What the grouping is asked: the settings win over the pack, the pack over what the collection itself suggests.

    All of those but the last are cosines of the model's own space, so they are carried into the matcher's if there is one.
    """
    carried = {name: model.thresholds[name] for name in THRESHOLDS if name in model.thresholds}
    chosen = {name: getattr(deps.settings, name) for name in THRESHOLDS if getattr(deps.settings, name) is not None}
    # A pack that carries only some cosines is calibrated, and those it has win.
    pack = carried if len(carried) == len(THRESHOLDS) else None
    if model.learnt is not None:
        if pack is None and len(faces.face_ids) < CALIBRATION_FACES:
            pack = asdict(ARCFACE_THRESHOLDS)
        pack = _carry(model.learnt, pack) if pack is not None else None
        carried, chosen = _carry(model.learnt, carried), _carry(model.learnt, chosen)
    return GroupingRequest(
        vectors=faces.vectors,
        assets=faces.assets,
        quality=faces.quality,
        algorithm=command.algorithm,
        seed_floor=deps.quality.seed_floor,
        pack_thresholds=Thresholds(**pack) if pack is not None else None,
        overrides=ThresholdOverrides(**{**carried, **chosen}),
        sizes=choose_sizes(deps, command),
    )


def _carry(learnt: LearntSpace, cosines: Mapping[str, float]) -> dict[str, float]:
    return {
        name: learnt.carry_difference(value) if name == "attach_margin" else learnt.carry(value)
        for name, value in cosines.items()
    }


def choose_sizes(deps: ClusteringDeps, command: ClusterFaces) -> GroupingSizes:
    """Counts and limits of a run."""
    settings = deps.settings
    return GroupingSizes(
        neighbours=settings.neighbours,
        min_cluster_size=command.min_cluster_size,
        min_samples=settings.min_samples,
        small_set=settings.small_set,
        block_rows=settings.block_rows,
        memory_budget_mb=settings.memory_budget_mb,
    )


async def store_grouping(
    tx: Transaction, deps: ClusteringDeps, command: ClusterFaces, grouping: Grouping, job_id: UUID
) -> ClusterRun:
    """Put the groups in place; the number of statements does not depend on the number of faces.

    Faces that got a person, were ignored or went away since they were read are left out. Faces outside the selection keep
    their clusters; clusters without members end. Raises :class:`Contention` if the library was moved to another model since:
    its faces have to be grouped again, by that.
    """
    await allow_long_work(tx)
    await lock_clusters(tx, command.library_id)
    active = await find_active_model(tx, command.library_id)
    if grouping.result is not None and (active is None or active.model_version != grouping.model_version):
        raise Contention(f"the library's model was changed while its faces were grouped by '{grouping.model_version}'")
    await hold_faces(tx, command.library_id, grouping.faces.face_ids)
    present = await read_memberships(tx, command.library_id, grouping.faces.face_ids)
    placed = _place(deps, command, grouping, present)
    result = grouping.result
    run = ClusterRun(
        run_id=deps.ids.new_uuid(),
        library_id=command.library_id,
        job_id=job_id,
        mode=command.mode,
        algorithm=command.algorithm.value,
        model_version=grouping.model_version,
        faces=placed.faces,
        clusters=len(placed.cluster_ids),
        clustered=len(placed.memberships),
        noise=placed.faces - len(placed.memberships),
        kept=placed.kept,
        thresholds=asdict(result.thresholds) if result else {},
        seconds=grouping.seconds,
        created_at=deps.clock.now(),
    )
    await insert_run(tx, run)
    await insert_clusters(tx, deps.clock, command.library_id, placed.new_ids, run.model_version, run.run_id)
    await write_memberships(tx, command.library_id, placed.memberships, placed.ungrouped)
    await clear_assigned(tx, command.library_id)
    await refresh_clusters(tx, placed.touched, placed.changed_clusters, run.model_version, run.run_id, deps.clock.now())
    await queue_faces(tx, deps.clock, command.library_id, placed.changed_faces)
    return run


def _place(
    deps: ClusteringDeps, command: ClusterFaces, grouping: Grouping, present: Mapping[UUID, str | None]
) -> _Placement:
    rows = np.array([face_id in present for face_id in grouping.faces.face_ids], dtype=np.bool_)
    face_ids = [face_id for face_id, stays in zip(grouping.faces.face_ids, rows, strict=True) if stays]
    old = [present[face_id] for face_id in face_ids]
    labels = np.empty(0, dtype=np.int32)
    confidence = np.empty(0, dtype=np.float32)
    if grouping.result is not None:
        labels, confidence = grouping.result.labels[rows], grouping.result.confidence[rows]
    labels = drop_small(labels, command.min_cluster_size)
    named = keep_cluster_ids(old, labels, deps.ids.new_cluster_id)
    new = [named.ids[label] if label >= 0 else None for label in labels.tolist()]
    changed = [row for row, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    known = {cluster_id for cluster_id in old if cluster_id is not None}
    changed_clusters = {name for row in changed for name in (old[row], new[row]) if name is not None}
    return _Placement(
        memberships=[
            Membership(face_id, cluster_id, value)
            for face_id, cluster_id, value in zip(face_ids, new, confidence.tolist(), strict=True)
            if cluster_id is not None
        ],
        ungrouped=[face_ids[row] for row in changed if new[row] is None],
        changed_faces=[face_ids[row] for row in changed],
        changed_clusters=sorted(changed_clusters),
        cluster_ids=named.ids,
        new_ids=[cluster_id for cluster_id in named.ids if cluster_id not in known],
        touched=sorted(changed_clusters | set(named.ids)),
        faces=len(face_ids),
        kept=named.kept,
    )


def drop_small(labels: npt.NDArray[np.int32], min_size: int) -> npt.NDArray[np.int32]:
    """Labels 0..K-1 without gaps, in the order they had; groups that lost too many faces meanwhile are noise (-1)."""
    sizes = Counter(labels[labels >= 0].tolist())
    kept = sorted(label for label, size in sizes.items() if size >= min_size)
    names = {label: name for name, label in enumerate(kept)}
    return np.array([names.get(label, -1) for label in labels.tolist()], dtype=np.int32)
