"""What a run of ClusterFaces is asked, how its job remembers that, and what it makes the grouping do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.clustering.domain.model import ActiveModel, ClusteringDeps, ClusterMode, ClusterScope
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.request import (
    Algorithm,
    GraphMethod,
    GroupingRequest,
    GroupingResult,
    GroupingSizes,
)
from services.clustering.grouping.thresholds import (
    ARCFACE_THRESHOLDS,
    CALIBRATION_FACES,
    ThresholdOverrides,
    Thresholds,
)
from services.clustering.repository.unassigned import FaceSelection, FaceTable
from shared.faces.projection import LearntSpace

THRESHOLDS = ("knn_floor", "link_floor", "merge", "attach", "attach_margin")


class GraphSource(StrEnum):
    """Who finds the neighbours."""

    LOCAL = "LOCAL"
    QDRANT = "QDRANT"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the caller says of a grouping; None leaves it to the settings, the pack and the collection."""

    neighbours: int | None = None
    min_samples: int | None = None
    seed_quality: float | None = None
    link_floor: float | None = None
    merge: float | None = None
    attach: float | None = None
    attach_margin: float | None = None
    veto_share: float | None = None
    first_groups_only: bool = False
    graph_source: GraphSource = GraphSource.LOCAL
    graph_method: GraphMethod | None = None

    def describe(self) -> dict[str, Any]:
        """As a job or a run keeps it: what was said."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> Parameters:
        """From what :meth:`describe` made."""
        method = said.get("graph_method")
        return cls(
            **{
                **said,
                "graph_source": GraphSource(said.get("graph_source", "LOCAL")),
                "graph_method": GraphMethod(method) if method else None,
            }
        )


@dataclass(frozen=True, slots=True)
class ClusterFaces:
    """What a run is to group, and how."""

    library_id: str
    algorithm: Algorithm
    selection: FaceSelection
    min_cluster_size: int
    mode: ClusterMode = ClusterMode.UNSUPERVISED
    scope: ClusterScope = ClusterScope.FULL
    parameters: Parameters = field(default_factory=Parameters)
    allow_missing: bool = False

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
            "scope": self.scope.value,
            "parameters": self.parameters.describe(),
            "allow_missing": self.allow_missing,
        }

    @classmethod
    def parse(cls, library_id: str, spec: Mapping[str, Any]) -> ClusterFaces:
        """From what :meth:`describe` made, also that of the version before, which knew of less."""

        def moment(name: str) -> datetime | None:
            return datetime.fromisoformat(spec[name]) if spec[name] else None

        return cls(
            library_id=library_id,
            algorithm=Algorithm(spec["algorithm"]),
            selection=FaceSelection(moment("captured_from"), moment("captured_before"), spec["min_quality"]),
            min_cluster_size=spec["min_cluster_size"],
            mode=ClusterMode(spec["mode"]),
            scope=ClusterScope(spec.get("scope", "FULL")),
            parameters=Parameters.parse(spec.get("parameters", {})),
            allow_missing=spec.get("allow_missing", False),
        )


def choose_sizes(deps: ClusteringDeps, command: ClusterFaces) -> GroupingSizes:
    """Counts and limits of a run: the caller's, else those of the settings."""
    settings, said = deps.settings, command.parameters
    return GroupingSizes(
        neighbours=said.neighbours or settings.neighbours,
        min_cluster_size=command.min_cluster_size,
        min_samples=said.min_samples or settings.min_samples,
        small_set=settings.small_set,
        exact_faces=settings.exact_faces,
        block_rows=settings.block_rows,
        threads=settings.threads,
        memory_budget_mb=settings.memory_budget_mb,
        veto_share=settings.veto_share if said.veto_share is None else said.veto_share,
    )


def choose_seed_floor(deps: ClusteringDeps, command: ClusterFaces) -> float:
    """The quality below which a face forms no group."""
    said = command.parameters.seed_quality
    return deps.quality.seed_floor if said is None else said


def build_request(
    deps: ClusteringDeps,
    command: ClusterFaces,
    model: ActiveModel,
    faces: FaceTable,
    graph: NeighbourGraph | None = None,
    checkpoint: Path | None = None,
) -> GroupingRequest:
    """What the grouping is asked: the caller wins over the settings, those over the pack, it over what the collection suggests.

    Cosines of the settings and the pack are of the model's own space, so they are carried into the matcher's if there is one;
    the caller's are of the space that faces are grouped in.
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
    said = {name: value for name, value in command.parameters.describe().items() if name in THRESHOLDS}
    return GroupingRequest(
        vectors=faces.vectors,
        assets=faces.assets,
        quality=faces.quality,
        anchors=faces.anchors,
        algorithm=command.algorithm,
        seed_floor=choose_seed_floor(deps, command),
        pack_thresholds=Thresholds(**pack) if pack is not None else None,
        overrides=ThresholdOverrides(**{**carried, **chosen, **said}),
        sizes=choose_sizes(deps, command),
        graph=graph,
        graph_method=command.parameters.graph_method,
        checkpoint=checkpoint,
        merge_and_attach=not command.parameters.first_groups_only,
    )


def describe_resolved(
    deps: ClusteringDeps, command: ClusterFaces, thresholds: Thresholds | None, result: GroupingResult | None
) -> dict[str, Any]:
    """The parameters that were in force, as the run keeps them, and ``min_cluster_size``."""
    sizes, said = choose_sizes(deps, command), command.parameters
    method = result.metrics.graph_method if result is not None else said.graph_method
    cosines = asdict(thresholds) if thresholds is not None else {}
    return {
        "neighbours": sizes.neighbours,
        "min_samples": sizes.min_samples,
        "seed_quality": choose_seed_floor(deps, command),
        **{name: cosines[name] for name in ("link_floor", "merge", "attach", "attach_margin") if name in cosines},
        "veto_share": sizes.veto_share,
        "first_groups_only": said.first_groups_only,
        "graph_source": said.graph_source.value,
        **({"graph_method": method.value} if method is not None else {}),
        "min_cluster_size": command.min_cluster_size,
        # Whether later runs may build on it: all faces were looked at.
        "whole": command.selection == FaceSelection(),
    }


def _carry(learnt: LearntSpace, cosines: Mapping[str, float]) -> dict[str, float]:
    return {
        name: learnt.carry_difference(value) if name == "attach_margin" else learnt.carry(value)
        for name, value in cosines.items()
    }
