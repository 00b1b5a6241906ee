"""The pure parts of a run: its spec, its thresholds, what becomes of groups that shrank."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest

from services.clustering.domain.cluster_faces import ClusterFaces, GraphSource, Parameters, build_request
from services.clustering.domain.model import ActiveModel, ClusteringDeps, ClusterMode, ClusterScope
from services.clustering.domain.placement import drop_small
from services.clustering.grouping.request import Algorithm, GraphMethod
from services.clustering.grouping.thresholds import ARCFACE_THRESHOLDS, Thresholds, resolve_thresholds
from services.clustering.repository.unassigned import FaceSelection, FaceTable
from shared.clock import SystemClock
from shared.config import ClusteringSettings, QualitySettings, SuggestionSettings
from shared.faces.embeddings import Vectors
from shared.faces.projection import LearntSpace, Projection, Strangers
from shared.ids import RandomIds

PACK = {"knn_floor": 0.1, "link_floor": 0.3, "merge": 0.5, "attach": 0.25, "attach_margin": 0.02}


def make_deps(**settings: float) -> ClusteringDeps:
    clock = SystemClock()
    return ClusteringDeps(
        clock, RandomIds(clock), ClusteringSettings(**settings), QualitySettings(seed_floor=0.15), SuggestionSettings()
    )


def make_command(selection: FaceSelection) -> ClusterFaces:
    return ClusterFaces("default", Algorithm.DBSCAN, selection, 4)


def make_faces(vectors: Vectors) -> FaceTable:
    count = len(vectors)
    return FaceTable(
        [UUID(int=row) for row in range(count)],
        vectors,
        np.arange(count),
        np.ones(count, dtype=np.float32),
        np.full(count, -1, dtype=np.int32),
        np.zeros(count, dtype=np.bool_),
    )


def resolve(carried: dict[str, float], **settings: float) -> Thresholds:
    vectors = np.eye(8, dtype=np.float32)
    faces = make_faces(vectors)
    request = build_request(make_deps(**settings), make_command(FaceSelection()), ActiveModel("m", 8, carried), faces)
    assert (request.seed_floor, request.sizes.min_cluster_size, request.algorithm) == (0.15, 4, Algorithm.DBSCAN)
    return resolve_thresholds(vectors, request.pack_thresholds, request.overrides)


@pytest.mark.parametrize(
    "selection",
    [
        FaceSelection(),
        FaceSelection(captured_from=datetime(2020, 1, 2, 3, tzinfo=UTC), min_quality=0.25),
        FaceSelection(captured_before=datetime(2021, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_spec_survives_the_job(selection: FaceSelection) -> None:
    command = make_command(selection)
    assert ClusterFaces.parse("default", command.describe()) == command


def test_all_a_caller_can_say_survives_the_job() -> None:
    said = Parameters(48, 5, 0.4, 0.3, 0.5, 0.25, 0.02, 0.2, True, GraphSource.QDRANT, GraphMethod.INVERTED_LISTS)
    command = ClusterFaces(
        "default",
        Algorithm.HDBSCAN,
        FaceSelection(),
        3,
        ClusterMode.DUAL,
        ClusterScope.INCREMENTAL,
        said,
        allow_missing=True,
    )
    kept = json.loads(json.dumps(command.describe()))
    assert ClusterFaces.parse("default", kept) == command


def test_a_spec_of_the_version_before_is_understood() -> None:
    before = make_command(FaceSelection()).describe()
    for name in ("scope", "parameters", "allow_missing"):
        del before[name]
    assert ClusterFaces.parse("default", before) == make_command(FaceSelection())


def test_the_caller_wins_over_the_settings() -> None:
    command = replace(make_command(FaceSelection()), parameters=Parameters(neighbours=48, merge=0.7, veto_share=0.3))
    deps = make_deps(merge=0.6, neighbours=16, attach=0.3)
    faces = make_faces(np.eye(8, dtype=np.float32))
    request = build_request(deps, command, ActiveModel("m", 8, PACK), faces)
    assert (request.sizes.neighbours, request.sizes.veto_share) == (48, 0.3)
    found = resolve_thresholds(faces.vectors, request.pack_thresholds, request.overrides)
    assert (found.merge, found.attach, found.link_floor) == (0.7, 0.3, PACK["link_floor"])


def test_the_pack_wins_over_the_usual_and_the_settings_over_the_pack() -> None:
    usual = resolve({})
    assert usual.merge == 0.55
    assert resolve(PACK) == Thresholds(**PACK)
    assert resolve({**PACK, "suggest_floor": 0.9}, merge=0.6) == Thresholds(**{**PACK, "merge": 0.6})
    assert resolve({"merge": 0.5}) == Thresholds(
        knn_floor=usual.knn_floor,
        link_floor=usual.link_floor,
        merge=0.5,
        attach=usual.attach,
        attach_margin=usual.attach_margin,
    )


def test_in_a_learnt_space_every_cosine_is_carried_there() -> None:
    # Strangers lie half as wide there, around 0.1: 0.3 becomes 0.1 + 0.3 / 2.
    learnt = LearntSpace(Projection(np.eye(8, 6, dtype=np.float32)), Strangers(0.0, 0.1), Strangers(0.1, 0.05))
    faces = make_faces(np.eye(1, 6, dtype=np.float32))

    def resolve_there(carried: dict[str, float], **settings: float) -> Thresholds:
        model = ActiveModel("m", 8, carried, learnt)
        request = build_request(make_deps(**settings), make_command(FaceSelection()), model, faces)
        return resolve_thresholds(faces.vectors, request.pack_thresholds, request.overrides)

    found = resolve_there(PACK, merge=0.6)
    assert asdict(found) == pytest.approx(
        {"knn_floor": 0.15, "link_floor": 0.25, "merge": 0.4, "attach": 0.225, "attach_margin": 0.01}
    )
    # Without a pack the usual ones, which are cosines of models, not of projections.
    assert resolve_there({}).link_floor == pytest.approx(0.1 + ARCFACE_THRESHOLDS.link_floor / 2)


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ([], []),
        ([-1, -1], [-1, -1]),
        ([0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 0, -1, -1, 1, 1, 1]),
        ([2, 2, 2, -1, 0], [0, 0, 0, -1, -1]),
    ],
)
def test_groups_that_shrank_are_noise_and_the_rest_close_up(labels: list[int], kept: list[int]) -> None:
    assert drop_small(np.array(labels, dtype=np.int32), 3, np.zeros(len(labels), dtype=np.bool_)).tolist() == kept


def test_groups_that_a_human_made_may_be_small() -> None:
    anchored = np.array([False, True, False, False])
    assert drop_small(np.array([0, 0, 1, 1], dtype=np.int32), 3, anchored).tolist() == [0, 0, -1, -1]
