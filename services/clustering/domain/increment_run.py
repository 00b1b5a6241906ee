"""One INCREMENTAL run of ClusterFaces: the faces that came since the last run, placed beside the clusters there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.clustering.domain.cluster_faces import (
    ClusterFaces,
    GraphSource,
    Parameters,
    build_request,
    describe_resolved,
)
from services.clustering.domain.grouping_run import (
    FacesRead,
    begin_to_store,
    tell_fate,
    tell_figures,
    write_placement,
)
from services.clustering.domain.model import ActiveModel, ClusteringDeps, ClusterRun
from services.clustering.domain.placement import Placement
from services.clustering.grouping.increment_request import IncrementRequest, IncrementResult, change_nothing
from services.clustering.grouping.request import Algorithm
from services.clustering.grouping.stable_ids import Fate
from services.clustering.grouping.thresholds import ThresholdOverrides, Thresholds
from services.clustering.repository.matchers import with_learnt_space
from services.clustering.repository.memberships import Membership, Place, list_new_faces, read_memberships
from services.clustering.repository.runs import find_last_runs
from services.clustering.repository.unassigned import FaceTable, find_active_model
from shared.db.engine import Transaction
from shared.errors import PreconditionFailed, Reason

MOST_NEW = 50_000
"""Each is held against every face there is; of more, a full run is the shorter way."""

SLOW_COMMIT = timedelta(minutes=10)
"""A face may become visible so long after its own time of creation."""


@dataclass(frozen=True, slots=True)
class Homes:
    """Where faces are before an increment: ``rows`` (N,) the group 0..C-1 by row, -1 none; ``cluster_ids`` of the groups;
    ``away`` (C,) whether they were put away; ``new`` (N,) the ungrouped faces that came, or came back, since the last run.
    """

    rows: npt.NDArray[np.int32]
    cluster_ids: Sequence[str]
    away: npt.NDArray[np.bool_]
    new: npt.NDArray[np.bool_]


async def follow_last_run(tx: Transaction, command: ClusterFaces) -> tuple[ClusterFaces, ClusterRun, Thresholds]:
    """The command with the parameters of the last full run, the last run of all, and the full one's thresholds.

    Raises :class:`PreconditionFailed` with RUN_REQUIRED if no run has looked at all faces, or by another model or matcher.
    """
    model = await find_active_model(tx, command.library_id)
    last, full = await find_last_runs(tx, command.library_id)
    if model is not None:
        model = await with_learnt_space(tx, command.library_id, model)
    if model is None or last is None or full is None or not _is_of(model, last) or not _is_of(model, full):
        version = model.model_version if model else ""
        raise PreconditionFailed(
            f"no run has grouped all faces by model '{version}' and the matcher in use yet: start one with scope FULL",
            reason=Reason.RUN_REQUIRED,
            metadata={"model_version": version},
        )
    said = {name: value for name, value in full.parameters.items() if name not in {"min_cluster_size", "whole"}}
    following = replace(
        command,
        algorithm=Algorithm(full.algorithm),
        min_cluster_size=full.parameters["min_cluster_size"],
        parameters=replace(Parameters.parse(said), graph_source=GraphSource.LOCAL, graph_method=None),
    )
    return following, last, Thresholds(**full.thresholds)


async def read_homes(tx: Transaction, library_id: str, faces: FaceTable, last: ClusterRun) -> Homes:
    """Where the faces are now, and which of them came, or came back, since ``last``.

    Raises :class:`PreconditionFailed` with RUN_REQUIRED if they are more than are placed one by one.
    """
    present = await read_memberships(tx, library_id, faces.face_ids)
    assert last.read_at is not None
    came = await list_new_faces(tx, library_id, last.read_at - SLOW_COMMIT)
    names: dict[str, int] = {}
    away: list[bool] = []
    rows = np.full(len(faces.face_ids), -1, dtype=np.int32)
    for row, face_id in enumerate(faces.face_ids):
        place = present.get(face_id)
        if place is None or place.cluster_id is None:
            continue
        if place.cluster_id not in names:
            names[place.cluster_id] = len(names)
            away.append(place.dismissed)
        rows[row] = names[place.cluster_id]
    new = np.array([face_id in came for face_id in faces.face_ids], dtype=np.bool_) & (rows < 0)
    if new.sum() > MOST_NEW:
        raise PreconditionFailed(
            f"{new.sum()} faces are new, more than the {MOST_NEW} that are placed one by one: start a run with scope FULL",
            reason=Reason.RUN_REQUIRED,
            metadata={"model_version": last.model_version},
        )
    return Homes(rows, list(names), np.array(away, dtype=np.bool_), new)


def build_increment(
    deps: ClusteringDeps,
    command: ClusterFaces,
    model: ActiveModel,
    faces: FaceTable,
    homes: Homes,
    thresholds: Thresholds,
) -> IncrementRequest:
    """What the grouping is asked; ``thresholds`` are those of the last full run, whatever else is said."""
    request = build_request(deps, command, model, faces)
    asked = replace(request, pack_thresholds=thresholds, overrides=ThresholdOverrides())
    return IncrementRequest(asked, homes.rows, homes.new, homes.away)


@dataclass(frozen=True, slots=True)
class Increment:
    """New faces placed; ``result`` is None where there were none. ``thresholds`` are those in force."""

    read: FacesRead
    homes: Homes
    thresholds: Thresholds
    result: IncrementResult | None
    seconds: Mapping[str, float]
    counts: Mapping[str, int]


async def store_increment(
    tx: Transaction, deps: ClusteringDeps, command: ClusterFaces, increment: Increment, job_id: UUID
) -> ClusterRun:
    """Put the new faces in place. Raises :class:`Contention` as :func:`store_grouping` does."""
    faces, result = increment.read.faces, increment.result
    if result is None:
        result = change_nothing(len(faces.face_ids))
    changed = [faces.face_ids[row] for row in np.flatnonzero(result.labels >= 0).tolist()]
    await begin_to_store(tx, command, increment.read, changed, touched_only=True)
    present = await read_memberships(tx, command.library_id, changed)
    placed = place_increment(faces, increment.homes, result, present, command.min_cluster_size, deps.ids.new_cluster_id)
    new = {faces.face_ids[row] for row in np.flatnonzero(increment.homes.new).tolist()}
    clustered = len(new.intersection(placed.changed_faces))
    run = ClusterRun(
        run_id=deps.ids.new_uuid(),
        library_id=command.library_id,
        job_id=job_id,
        mode=command.mode,
        algorithm=command.algorithm.value,
        model_version=increment.read.model.model_version if increment.read.model else "",
        faces=placed.faces,
        clusters=len(placed.groups),
        clustered=clustered,
        noise=placed.faces - clustered,
        kept=placed.fate.kept,
        thresholds=asdict(increment.thresholds),
        seconds=increment.seconds,
        created_at=deps.clock.now(),
        scope=command.scope,
        parameters=describe_resolved(deps, command, increment.thresholds, None),
        metrics={"pooled": result.pooled},
        outcome={**tell_fate(placed.fate), "missing": increment.read.missing, **increment.counts},
        read_at=increment.read.read_at,
        matcher_id=increment.read.model.matcher_id if increment.read.model else None,
    )
    figures = tell_figures(faces, result.medoids, result.separations, placed)
    await write_placement(tx, deps, run, placed, figures)
    return run


def place_increment(
    faces: FaceTable,
    homes: Homes,
    result: IncrementResult,
    present: Mapping[UUID, Place],
    min_cluster_size: int,
    new_id: Callable[[], str],
) -> Placement:
    """What is to be written of an increment, held against the present: a face that went elsewhere meanwhile stays there.

    ``present`` has the faces of the groups that changed.
    """
    before = [homes.cluster_ids[home] if home >= 0 else None for home in homes.rows.tolist()]
    alive = {place.cluster_id for place in present.values()}
    rows = np.flatnonzero(result.labels >= 0).tolist()
    anchors = faces.anchors.tolist()
    still = [row for row in rows if _is_there(present.get(faces.face_ids[row]), before[row], anchors[row] >= 0)]
    names: dict[int, str] = {}
    for group, origin in enumerate(result.origins.tolist()):
        if origin >= 0 and homes.cluster_ids[origin] in alive:
            names[group] = homes.cluster_ids[origin]
    labels = result.labels.tolist()
    sizes = Counter(labels[row] for row in still)
    held = {labels[row] for row in still if anchors[row] >= 0}
    new_ids = []
    for group in range(len(result.origins)):
        if group not in names and (sizes[group] >= min_cluster_size or group in held):
            names[group] = new_id()
            new_ids.append(names[group])
    moved = [row for row in still if labels[row] in names and names[labels[row]] != before[row]]
    absorbed = {before[row] for row in moved} - {None} - set(names.values())
    return Placement(
        memberships=[
            Membership(faces.face_ids[row], names[labels[row]], float(result.confidence[row])) for row in moved
        ],
        ungrouped=[],
        changed_faces=[faces.face_ids[row] for row in moved],
        changed_clusters=sorted(
            {names[labels[row]] for row in moved} | {name for name in absorbed if name is not None}
        ),
        groups={names[label]: label for label in sorted({labels[row] for row in moved})},
        new_ids=new_ids,
        dismissed=set(),
        faces=int(homes.new.sum()),
        fate=Fate(
            kept=len(homes.cluster_ids) - len(absorbed),
            grown=len({names[labels[row]] for row in moved} - set(new_ids)),
            split=0,
            merged=len({names[labels[row]] for row in moved if before[row] is not None}),
            created=len(new_ids),
            gone=len(absorbed),
        ),
    )


def _is_there(place: Place | None, before: str | None, anchored: bool) -> bool:
    """Whether the face is where it was, and no human has put it there since it was read."""
    return place is not None and place.cluster_id == before and (anchored or not place.pinned)


def _is_of(model: ActiveModel, run: ClusterRun) -> bool:
    return (run.model_version, run.matcher_id) == (model.model_version, model.matcher_id)
