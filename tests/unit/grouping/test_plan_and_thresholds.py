"""Memory and thresholds are settled before the start."""

from __future__ import annotations

import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest

from bench.embeddings import GeneratedFaces
from services.clustering.grouping.graph_sizes import plan_graph
from services.clustering.grouping.pipeline import group_faces
from services.clustering.grouping.plan import check_memory, plan_memory
from services.clustering.grouping.request import Algorithm, GroupingRequest, GroupingSizes
from services.clustering.grouping.thresholds import (
    ARCFACE_THRESHOLDS,
    ThresholdOverrides,
    Thresholds,
    calibrate_thresholds,
    resolve_thresholds,
)
from shared.errors import MemoryBudgetExceeded
from tests.unit.grouping.conftest import ignore, never

MIB = 1024 * 1024


def test_the_formula_as_documented() -> None:
    sizes = GroupingSizes(neighbours=32, threads=2, min_cluster_size=3, small_set=2000)
    plan = plan_memory(120_000, 512, Algorithm.HDBSCAN, sizes)
    pairs = plan_graph(10_000, 512, None, sizes)
    assert plan.process == 320 * MIB
    assert plan.vectors == 122_880_000
    assert plan.graph == 30_720_000
    assert plan.building == plan_graph(120_000, 512, None, sizes).building
    assert plan.forming == 120_000 * 32 * 28 + 120_000 * 96
    assert plan.grouping == 10_000 * 512 * 8 + 120_000 * 56 + pairs.building + pairs.result
    assert plan.slices == 4096 * 512 * 12
    assert plan.small_set == 0
    assert plan.peak == plan.process + plan.vectors + plan.graph + max(
        plan.building, plan.forming, plan.grouping + plan.slices
    )
    assert plan_memory(120_000, 512, Algorithm.HDBSCAN, sizes, number_bytes=4).vectors == 245_760_000
    check_memory(plan, plan.peak_mb)
    with pytest.raises(MemoryBudgetExceeded):
        check_memory(plan, plan.peak_mb - 1)


def test_a_million_faces_fit_where_they_are_meant_to() -> None:
    sizes = GroupingSizes()
    one, ten = (plan_memory(n, 512, Algorithm.HDBSCAN, sizes) for n in (100_000, 1_000_000))
    assert one.peak_mb < 1024
    assert ten.peak_mb < 3.8 * 1024
    assert plan_memory(1_000_000, 512, Algorithm.DBSCAN, sizes).peak_mb < 3.8 * 1024
    assert plan_memory(2000, 512, Algorithm.HDBSCAN, sizes).small_set == 2000 * 512 * 8 + 2000 * 2000 * 16
    assert plan_memory(5000, 512, Algorithm.AGGLOMERATIVE, sizes).forming == 5000 * (32 * 52 + 512 * 4 + 56)


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("small_set", [0, 5000])
def test_numpy_stays_within_the_plan(faces_5k: GeneratedFaces, algorithm: Algorithm, small_set: int) -> None:
    """Small blocks, so that the other parts show; what the libraries take in C is not seen here."""
    count = 2000
    sizes = GroupingSizes(block_rows=128, small_set=small_set)
    vectors = faces_5k.vectors[:count].astype(np.float16)
    request = GroupingRequest(vectors, np.arange(count), faces_5k.quality[:count], algorithm=algorithm, sizes=sizes)
    group_faces(request, ignore, never)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        group_faces(request, ignore, never)
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    plan = plan_memory(count, 512, algorithm, sizes)
    assert taken <= plan.peak - plan.vectors - plan.process
    assert taken > 0


def test_overrides_win_over_the_pack_and_the_pack_over_calibration(faces_5k: GeneratedFaces) -> None:
    pack = Thresholds(0.1, 0.5, 0.7, 0.4, 0.03)
    assert resolve_thresholds(faces_5k.vectors, pack, ThresholdOverrides()) == pack
    mixed = resolve_thresholds(faces_5k.vectors, pack, ThresholdOverrides(merge=0.8, attach_margin=0.0))
    assert astuple(mixed) == (0.1, 0.5, 0.8, 0.4, 0.0)
    assert resolve_thresholds(faces_5k.vectors, None, ThresholdOverrides()) == calibrate_thresholds(faces_5k.vectors)
    assert resolve_thresholds(faces_5k.vectors[:4999], None, ThresholdOverrides()) == ARCFACE_THRESHOLDS


def test_neighbours_reach_as_low_as_attaching_needs(faces_5k: GeneratedFaces) -> None:
    low = resolve_thresholds(faces_5k.vectors, ARCFACE_THRESHOLDS, ThresholdOverrides(attach=0.1))
    assert low.knn_floor == 0.1


def test_calibration_follows_the_strangers(faces_5k: GeneratedFaces) -> None:
    found = calibrate_thresholds(faces_5k.vectors)
    assert found == calibrate_thresholds(faces_5k.vectors)
    assert found.attach < found.link_floor < found.merge
    strangers = faces_5k.vectors[:1000] @ faces_5k.vectors[1000:2000].T
    different = faces_5k.truth[:1000, None] != faces_5k.truth[None, 1000:2000]
    assert (strangers[different] > found.link_floor).mean() < 0.01


@pytest.mark.parametrize("wrong", [(0.2, 1.4, 0.5, 0.3, 0.0), (0.2, 0.4, 0.5, 0.3, -0.1), (np.nan, 0.4, 0.5, 0.3, 0.1)])
def test_thresholds_that_are_no_cosines_are_refused(wrong: tuple[float, float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"thresholds|margin"):
        Thresholds(*wrong)
