"""A grouping from start to end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.embeddings import GeneratedFaces
from services.clustering.grouping.pipeline import group_faces, order_by_size
from services.clustering.grouping.request import (
    Algorithm,
    GroupingCancelled,
    GroupingRequest,
    GroupingResult,
    GroupingSizes,
    Phase,
    Progress,
)
from services.clustering.grouping.thresholds import ARCFACE_THRESHOLDS, ThresholdOverrides
from shared.errors import InvalidRequest, PreconditionFailed, Reason
from shared.faces.agreement import measure_agreement
from shared.faces.embeddings import normalise
from tests.unit.grouping.conftest import ignore, never


def score(faces: GeneratedFaces, result: GroupingResult) -> float:
    return measure_agreement(faces.truth[faces.judged], result.labels[faces.judged]).pairwise_f1


def test_five_thousand_faces_are_grouped_well(faces_5k: GeneratedFaces, result_5k: GroupingResult) -> None:
    agreement = measure_agreement(faces_5k.truth[faces_5k.judged], result_5k.labels[faces_5k.judged])
    assert agreement.pairwise_f1 >= 0.93
    assert agreement.bcubed_f1 >= 0.93
    assert agreement.pairwise_precision >= 0.97


def test_the_result_is_consistent(request_5k: GroupingRequest, result_5k: GroupingResult) -> None:
    labels, metrics = result_5k.labels, result_5k.metrics
    sizes = np.bincount(labels[labels >= 0])
    assert labels.dtype == np.int32
    assert (np.diff(sizes) <= 0).all()
    assert sizes.min() >= 3
    assert (metrics.clusters, metrics.largest) == (len(sizes), sizes[0])
    assert metrics.noise + sizes.sum() == metrics.faces == 5000
    assert set(metrics.seconds) == {phase.value for phase in Phase}
    own = np.einsum("nd,nd->n", request_5k.vectors, result_5k.centroids[labels])
    np.testing.assert_allclose(result_5k.confidence, np.where(labels >= 0, own, 0), atol=1e-5)
    assert metrics.cohesion == pytest.approx(float(own[labels >= 0].mean()), abs=1e-4)
    assert metrics.peak_bytes < 64 * 1024 * 1024


def test_the_same_request_gives_the_same_groups(request_5k: GroupingRequest, result_5k: GroupingResult) -> None:
    again = group_faces(replace(request_5k, sizes=GroupingSizes(threads=1)), ignore, never)
    np.testing.assert_array_equal(again.labels, result_5k.labels)
    np.testing.assert_array_equal(again.confidence, result_5k.confidence)


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("small_set", [0, 2000])
def test_every_algorithm_small_and_large(faces_1k: GeneratedFaces, algorithm: Algorithm, small_set: int) -> None:
    request = GroupingRequest(
        faces_1k.vectors,
        np.arange(1000),
        faces_1k.quality,
        algorithm=algorithm,
        sizes=GroupingSizes(small_set=small_set),
    )
    assert score(faces_1k, group_faces(request, ignore, never)) >= 0.9


@pytest.mark.parametrize("small_set", [0, 2000])
def test_a_single_person_is_one_group(small_set: int) -> None:
    random = np.random.default_rng(0)
    vectors = normalise(random.standard_normal(64) + 0.8 * random.standard_normal((40, 64)))
    request = GroupingRequest(vectors, np.arange(40), np.ones(40), sizes=GroupingSizes(small_set=small_set))
    assert (group_faces(request, ignore, never).labels == 0).mean() >= 0.95


@pytest.mark.parametrize("small_set", [0, 2000])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_very_few_faces(count: int, small_set: int) -> None:
    vectors = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (count, 1))
    request = GroupingRequest(vectors, np.arange(count), np.ones(count), sizes=GroupingSizes(small_set=small_set))
    result = group_faces(request, ignore, never)
    assert result.labels.tolist() == ([0, 0, 0] if count == 3 else [-1] * count)


@pytest.mark.parametrize("small_set", [0, 2000])
def test_poor_faces_join_but_form_nothing(small_set: int) -> None:
    random = np.random.default_rng(1)
    people = normalise(random.standard_normal((2, 64)))
    vectors = normalise(np.repeat(people, 12, axis=0) + 0.05 * random.standard_normal((24, 64)))
    quality = np.array([0.9] * 8 + [0.1] * 16)
    request = GroupingRequest(vectors, np.arange(24), quality, sizes=GroupingSizes(small_set=small_set))
    result = group_faces(request, ignore, never)
    assert result.labels.tolist() == [0] * 12 + [-1] * 12
    assert (result.metrics.seeds, result.metrics.attached) == (8, 4)


def test_twins_in_the_same_photos_stay_two_people() -> None:
    random = np.random.default_rng(2)
    face = random.standard_normal(64)
    twins = normalise(np.stack([face, face]) + 0.7 * random.standard_normal((2, 64)))
    assert 0.6 < twins[0] @ twins[1] < 0.75
    vectors = normalise(np.repeat(twins, 20, axis=0) + 0.01 * random.standard_normal((40, 64)))
    request = GroupingRequest(vectors, np.tile(np.arange(20), 2), np.ones(40), sizes=GroupingSizes(small_set=0))
    result = group_faces(request, ignore, never)
    assert result.labels.tolist() == [0] * 20 + [1] * 20
    assert result.metrics.vetoed == 1
    apart = group_faces(replace(request, assets=np.arange(40)), ignore, never)
    assert apart.metrics.clusters == 1


def test_too_much_memory_is_refused_by_name_before_anything_begins(request_5k: GroupingRequest) -> None:
    seen: list[Progress] = []
    with pytest.raises(PreconditionFailed) as refused:
        group_faces(replace(request_5k, sizes=GroupingSizes(memory_budget_mb=10)), seen.append, never)
    assert refused.value.reason is Reason.MEMORY_BUDGET
    assert refused.value.metadata["budget_mb"] == "10"
    assert int(refused.value.metadata["needed_mb"]) > 10
    assert seen == []


def test_progress_goes_through_the_phases_and_a_flag_stops_it(request_5k: GroupingRequest) -> None:
    seen: list[Progress] = []
    with pytest.raises(GroupingCancelled):
        group_faces(request_5k, seen.append, lambda: bool(seen) and seen[-1].phase is Phase.MERGE)
    assert list(dict.fromkeys(p.phase for p in seen)) == [Phase.NEIGHBOURS, Phase.FORM, Phase.MERGE]
    assert all(0 <= p.done <= p.total for p in seen)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vectors": np.ones((4, 2), dtype=np.float32)}, "vectors"),
        ({"vectors": np.full((4, 2), np.nan, dtype=np.float32)}, "vectors"),
        ({"vectors": np.ones(4, dtype=np.float32)}, "vectors"),
        ({"assets": np.arange(3)}, "assets"),
        ({"quality": np.ones(5)}, "assets"),
        ({"sizes": GroupingSizes(min_cluster_size=1)}, "sizes"),
        ({"sizes": GroupingSizes(neighbours=0)}, "sizes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(change: dict[str, Any], field: str) -> None:
    request = GroupingRequest(np.eye(4, 2, dtype=np.float32)[[0, 1, 0, 1]], np.arange(4), np.ones(4))
    with pytest.raises(InvalidRequest) as refused:
        group_faces(replace(request, **change), ignore, never)
    assert refused.value.violations[0].field == field


def test_overrides_are_used_and_reported(faces_1k: GeneratedFaces) -> None:
    request = GroupingRequest(
        faces_1k.vectors,
        np.arange(1000),
        faces_1k.quality,
        pack_thresholds=ARCFACE_THRESHOLDS,
        sizes=GroupingSizes(small_set=0),
    )
    strict = replace(request, overrides=ThresholdOverrides(link_floor=0.9, merge=0.95, attach=0.9))
    loose, tight = group_faces(request, ignore, never), group_faces(strict, ignore, never)
    assert tight.thresholds.link_floor == 0.9
    assert tight.metrics.noise > loose.metrics.noise


def test_groups_are_numbered_by_size_then_first_row() -> None:
    labels = np.array([2, 2, -1, 0, 1, 1, 0, 0], dtype=np.int32)
    assert order_by_size(labels).tolist() == [1, 1, -1, 0, 2, 2, 0, 0]
