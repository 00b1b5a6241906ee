"""One run of ClusterFaces: check and read the unassigned faces, put the groups in place.

Both are use cases on a transaction; grouping lies between them, without one, in a process of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.clustering.domain.cluster_faces import ClusterFaces, choose_sizes, describe_resolved
from services.clustering.domain.model import ActiveModel, ClusteringDeps, ClusterRun
from services.clustering.domain.placement import Groups, Placement, place_groups
from services.clustering.grouping.plan import check_memory, plan_memory
from services.clustering.grouping.request import GroupingResult
from services.clustering.grouping.stable_ids import Fate
from services.clustering.repository.locks import hold_faces, lock_clusters
from services.clustering.repository.matchers import with_learnt_space
from services.clustering.repository.memberships import (
    Figures,
    clear_assigned,
    insert_clusters,
    list_wider_clusters,
    read_memberships,
    refresh_clusters,
    write_figures,
    write_memberships,
)
from services.clustering.repository.runs import insert_run
from services.clustering.repository.unassigned import (
    FaceCounts,
    FaceSelection,
    FaceTable,
    count_unassigned,
    find_active_model,
    read_unassigned,
)
from services.clustering.repository.workspace import Workspace
from shared.db.engine import Transaction
from shared.db.long_work import allow_long_work
from shared.db.outbox import queue_faces
from shared.errors import Contention, InvalidRequest, PreconditionFailed, Reason


@dataclass(frozen=True, slots=True)
class FacesRead:
    """Faces to group, with the model they were read by, at which moment, and how many have no embedding of it.

    ``model`` is None for a library without one, which has no faces.
    """

    faces: FaceTable
    model: ActiveModel | None
    read_at: datetime
    missing: int


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups that faces were found to be in; ``result`` is None where there were no faces. ``counts`` are further figures
    of the run's outcome.
    """

    read: FacesRead
    faces: FaceTable
    result: GroupingResult | None
    seconds: Mapping[str, float]
    counts: Mapping[str, int]


async def check_faces(
    tx: Transaction, deps: ClusteringDeps, command: ClusterFaces
) -> tuple[ActiveModel | None, FaceCounts]:
    """The model and how many faces there are to group, before anything is begun.

    Raises :class:`InvalidRequest`, :class:`MemoryBudgetExceeded`, and :class:`PreconditionFailed` with EMBEDDINGS_MISSING.
    """
    sizes = choose_sizes(deps, command)
    if sizes.min_samples > sizes.neighbours:
        raise InvalidRequest(
            f"min_samples must be at most neighbours, which is {sizes.neighbours}", field="parameters.min_samples"
        )
    model = await find_active_model(tx, command.library_id)
    if model is None:
        return None, FaceCounts(0, 0)
    counts = await count_unassigned(tx, command.library_id, model, command.selection)
    faces = counts.embedded + counts.missing
    if not command.allow_missing and counts.missing > deps.settings.max_missing_share * faces:
        raise PreconditionFailed(
            f"{counts.missing} of {faces} faces have no embedding of model '{model.model_version}': detect their photos again, "
            "or group the others with allow_missing_embeddings",
            reason=Reason.EMBEDDINGS_MISSING,
            metadata={"missing": str(counts.missing), "faces": str(faces)},
        )
    if counts.embedded:
        plan = plan_memory(counts.embedded, model.dimension, command.algorithm, sizes, command.parameters.graph_method)
        check_memory(plan, sizes.memory_budget_mb)
    return model, counts


async def read_faces(tx: Transaction, deps: ClusteringDeps, command: ClusterFaces, workspace: Workspace) -> FacesRead:
    """The faces to group, in a snapshot, kept in the workspace. Raises what :func:`check_faces` raises."""
    now = deps.clock.now()
    model, counts = await check_faces(tx, deps, command)
    if model is None:
        return FacesRead(FaceTable.empty(0), None, now, 0)
    model = await with_learnt_space(tx, command.library_id, model)
    dimension = model.learnt.projection.dimension if model.learnt else model.dimension
    vectors = workspace.make_vectors(counts.embedded, dimension)
    faces = await read_unassigned(tx, command.library_id, model, command.selection, vectors)
    workspace.keep(faces, _tell_facts(model, now, counts.missing))
    kept = workspace.open()
    assert kept is not None
    return FacesRead(kept[0], model, now, counts.missing)


async def reopen_faces(tx: Transaction, library_id: str, workspace: Workspace) -> FacesRead | None:
    """The faces that an earlier worker of the same job has read; None if it kept none, or the model or matcher is another."""
    kept = workspace.open()
    model = await find_active_model(tx, library_id)
    if kept is None or model is None:
        return None
    faces, facts = kept
    model = await with_learnt_space(tx, library_id, model)
    read_at = datetime.fromisoformat(facts["read_at"])
    if facts != _tell_facts(model, read_at, facts["missing"]):
        return None
    return FacesRead(faces, model, read_at, facts["missing"])


def _tell_facts(model: ActiveModel, read_at: datetime, missing: int) -> dict[str, Any]:
    return {
        "model_version": model.model_version,
        "matcher_id": str(model.matcher_id) if model.matcher_id else None,
        "read_at": read_at.isoformat(),
        "missing": missing,
    }


async def store_grouping(
    tx: Transaction, deps: ClusteringDeps, command: ClusterFaces, grouping: Grouping, job_id: UUID
) -> ClusterRun:
    """Put the groups in place; the number of statements does not depend on the number of faces.

    Faces that got a person, were ignored or went away since they were read are left out. Faces outside the selection keep
    their clusters; clusters without members end. Raises :class:`Contention` if the library was moved to another model since:
    its faces have to be grouped again, by that.
    """
    result, faces = grouping.result, grouping.faces
    await begin_to_store(tx, command, grouping.read if result is not None else None, faces.face_ids)
    present = await read_memberships(tx, command.library_id, faces.face_ids)
    partial = command.selection != FaceSelection()
    wider = await list_wider_clusters(tx, command.library_id, faces.face_ids) if partial else set()
    placed = place_groups(
        _tell_groups(faces, result), present, command.min_cluster_size, deps.ids.new_cluster_id, wider
    )
    run = _make_run(deps, command, grouping, placed, job_id)
    figures = tell_figures(faces, result.medoids, result.separations, placed, wider) if result is not None else []
    await write_placement(tx, deps, run, placed, figures)
    return run


async def begin_to_store(
    tx: Transaction,
    command: ClusterFaces,
    read: FacesRead | None,
    face_ids: Sequence[UUID],
    *,
    touched_only: bool = False,
) -> None:
    """Lock the library's clusters and hold the faces; ``read`` None: nothing was grouped. ``touched_only``: only clusters of
    these faces will be written.

    Raises :class:`Contention` if the library was moved to another model since they were read.
    """
    await allow_long_work(tx)
    await lock_clusters(tx, command.library_id)
    active = await find_active_model(tx, command.library_id)
    if read is not None:
        version = read.model.model_version if read.model else ""
        if active is None or active.model_version != version:
            raise Contention(f"the library's model was changed while its faces were grouped by '{version}'")
    await hold_faces(tx, command.library_id, face_ids, members=not touched_only)


async def write_placement(
    tx: Transaction, deps: ClusteringDeps, run: ClusterRun, placed: Placement, figures: Sequence[Figures]
) -> None:
    """Write a run and what it did, by a fixed number of statements."""
    await insert_run(tx, run)
    await insert_clusters(
        tx, deps.clock, run.library_id, placed.new_ids, run.model_version, run.run_id, placed.dismissed
    )
    await write_memberships(tx, run.library_id, placed.memberships, placed.ungrouped)
    await clear_assigned(tx, run.library_id)
    await refresh_clusters(tx, placed.touched, placed.changed_clusters, run.model_version, run.run_id, deps.clock.now())
    await write_figures(tx, figures)
    await queue_faces(tx, deps.clock, run.library_id, placed.changed_faces)


def _tell_groups(faces: FaceTable, result: GroupingResult | None) -> Groups:
    if result is None:
        nothing = FaceTable.empty(0)
        return Groups([], nothing.anchors, nothing.quality, nothing.anchors)
    return Groups(faces.face_ids, result.labels, result.confidence, faces.anchors)


def tell_figures(
    faces: FaceTable,
    medoids: npt.NDArray[np.int64],
    separations: npt.NDArray[np.float32],
    placed: Placement,
    wider: Collection[str] = (),
) -> list[Figures]:
    """Figures by cluster, of the rows and cosines by group; none of clusters of which only a part was grouped (``wider``)."""
    figures = []
    for cluster_id, group in placed.groups.items():
        if cluster_id in wider:
            continue
        separation = float(separations[group])
        medoid = faces.face_ids[int(medoids[group])]
        figures.append(Figures(cluster_id, medoid, None if np.isnan(separation) else separation))
    return figures


def _make_run(
    deps: ClusteringDeps, command: ClusterFaces, grouping: Grouping, placed: Placement, job_id: UUID
) -> ClusterRun:
    read, result, fate = grouping.read, grouping.result, placed.fate
    thresholds = result.thresholds if result is not None else None
    return ClusterRun(
        run_id=deps.ids.new_uuid(),
        library_id=command.library_id,
        job_id=job_id,
        mode=command.mode,
        algorithm=command.algorithm.value,
        model_version=read.model.model_version if read.model else "",
        faces=placed.faces,
        clusters=len(placed.groups),
        clustered=len(placed.memberships),
        noise=placed.faces - len(placed.memberships),
        kept=fate.kept,
        thresholds=asdict(thresholds) if thresholds is not None else {},
        seconds=grouping.seconds,
        created_at=deps.clock.now(),
        scope=command.scope,
        parameters=describe_resolved(deps, command, thresholds, result),
        metrics=_tell_metrics(result) if result is not None else {},
        outcome={**tell_fate(fate), "missing": read.missing, **grouping.counts},
        read_at=read.read_at,
        matcher_id=read.model.matcher_id if read.model else None,
    )


def tell_fate(fate: Fate) -> dict[str, int]:
    """As a run keeps it, which has a column for those that kept their id."""
    return {name: count for name, count in asdict(fate).items() if name != "kept"}


def _tell_metrics(result: GroupingResult) -> dict[str, float]:
    found = result.metrics
    return {
        "largest": found.largest,
        "median_size": found.median_size,
        "noise_share": found.noise / found.faces if found.faces else 0.0,
        "cohesion": found.cohesion,
        "separation": found.separation,
        "silhouette": found.silhouette,
        "validity": found.validity,
        "peak_mb": found.peak_bytes / (1 << 20),
    }
