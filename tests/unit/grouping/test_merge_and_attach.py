"""Merging groups and attaching single faces."""

from __future__ import annotations

import numpy as np
import pytest

from bench.embeddings import GeneratedFaces
from services.clustering.grouping.attach import attach_faces
from services.clustering.grouping.forest import form_groups
from services.clustering.grouping.merge import Groups, gather_groups, merge_groups
from services.clustering.grouping.request import GroupingSizes
from services.clustering.grouping.thresholds import calibrate_thresholds
from shared.faces.agreement import measure_agreement
from shared.faces.embeddings import normalise
from tests.unit.grouping.conftest import link_all, no_check


def merge(
    vectors: np.ndarray,
    labels: np.ndarray,
    assets: np.ndarray,
    anchors: list[int] | None = None,
    *,
    threshold: float = 0.6,
    veto_share: float = 0.1,
) -> tuple[Groups, int]:
    free = np.full(len(labels), -1) if anchors is None else np.array(anchors)
    return merge_groups(
        gather_groups(vectors, labels, no_check),
        assets,
        free.astype(np.int32),
        threshold=threshold,
        sizes=GroupingSizes(veto_share=veto_share),
        between_blocks=no_check,
    )


def torn_person() -> tuple[np.ndarray, np.ndarray]:
    """Ten faces of one person in two groups of five, and five of a stranger."""
    random = np.random.default_rng(0)
    looks = normalise(np.array([[1.0, 0.3, 0, 0], [1.0, -0.3, 0, 0], [0, 0, 0, 1.0]]))
    vectors = normalise(np.repeat(looks, 5, axis=0) + 0.05 * random.standard_normal((15, 4)))
    return vectors, np.repeat(np.arange(3, dtype=np.int32), 5)


def test_alike_groups_merge_and_strangers_do_not() -> None:
    vectors, labels = torn_person()
    merged, merges = merge(vectors, labels, np.arange(15))
    np.testing.assert_array_equal(merged.labels, [0] * 10 + [1] * 5)
    assert (merges, len(merged.vetoed)) == (1, 0)


def test_groups_that_share_photos_do_not_merge() -> None:
    vectors, labels = torn_person()
    assets = np.concatenate([np.arange(5), np.arange(5), np.arange(5, 10)])
    merged, merges = merge(vectors, labels, assets)
    np.testing.assert_array_equal(merged.labels, labels)
    assert (merges, len(merged.vetoed)) == (0, 1)


@pytest.mark.parametrize(("shared", "expected"), [(0, 1), (2, 1), (3, 0)])
def test_a_small_share_of_common_photos_is_no_veto(shared: int, expected: int) -> None:
    random = np.random.default_rng(1)
    vectors = normalise(np.array([1.0, 0, 0, 0]) + 0.1 * random.standard_normal((40, 4)))
    labels = np.repeat(np.arange(2, dtype=np.int32), 20)
    assets = np.arange(40)
    assets[20 : 20 + shared] = assets[:shared]
    _, merges = merge(vectors, labels, assets)
    assert merges == expected


def test_the_veto_counts_what_was_merged_before() -> None:
    """A and B are one person; C shares photos with A only, and is alike to both."""
    random = np.random.default_rng(2)
    vectors = normalise(np.array([1.0, 0, 0, 0]) + 0.02 * random.standard_normal((15, 4)))
    vectors[10:] = normalise(vectors[10:] + np.array([0, 0.4, 0, 0]))
    labels = np.repeat(np.arange(3, dtype=np.int32), 5)
    assets = np.concatenate([np.arange(10), np.arange(5)])
    merged, _ = merge(vectors, labels, assets)
    np.testing.assert_array_equal(merged.labels, [0] * 10 + [1] * 5)


def test_merging_is_by_the_merged_centroid_not_by_a_chain() -> None:
    """A-B and B-C are above the threshold, but C is not alike to A and B together."""
    angles = np.deg2rad([0, 40, 84])
    looks = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vectors = normalise(np.repeat(looks, [10, 5, 5], axis=0))
    labels = np.repeat(np.arange(3, dtype=np.int32), [10, 5, 5])
    merged, _ = merge(vectors, labels, np.arange(20), threshold=0.7)
    np.testing.assert_array_equal(merged.labels, [0] * 15 + [1] * 5)


def test_groups_of_two_anchors_do_not_merge_and_one_of_them_takes_the_free() -> None:
    vectors, labels = torn_person()
    anchors = [7] + [-1] * 4 + [9] + [-1] * 9
    merged, merges = merge(vectors, labels, np.arange(15), anchors)
    np.testing.assert_array_equal(merged.labels, labels)
    assert (merges, len(merged.vetoed)) == (0, 1)
    merged, merges = merge(vectors, labels, np.arange(15), [7] + [-1] * 14)
    np.testing.assert_array_equal(merged.labels, [0] * 10 + [1] * 5)


def test_two_anchors_do_not_meet_in_a_third_group() -> None:
    """B is alike to A and C, which are anchored; whichever it joins, the other stays."""
    angles = np.deg2rad([0, 20, 45])
    vectors = normalise(np.repeat(np.stack([np.cos(angles), np.sin(angles)], axis=1), 5, axis=0))
    labels = np.repeat(np.arange(3, dtype=np.int32), 5)
    merged, merges = merge(vectors, labels, np.arange(15), [1] * 5 + [-1] * 5 + [2] * 5, threshold=0.5)
    np.testing.assert_array_equal(merged.labels, [0] * 10 + [1] * 5)
    assert (merges, len(merged.vetoed)) == (1, 1)


@pytest.mark.parametrize("count", [40, 400])
def test_many_torn_groups_become_one_with_few_pairs_each(count: int) -> None:
    """More alike groups than a group shows pairs: the rounds find the rest."""
    random = np.random.default_rng(3)
    vectors = normalise(np.array([1.0] + [0.0] * 15) + 0.05 * random.standard_normal((3 * count, 16)))
    merged, merges = merge(vectors, np.repeat(np.arange(count, dtype=np.int32), 3), np.arange(3 * count))
    assert (merges, len(merged.sums)) == (count - 1, 1)
    np.testing.assert_allclose(merged.sums[0], vectors.sum(axis=0), rtol=1e-4, atol=1e-4)


def test_groups_that_have_not_changed_are_not_held_against_each_other() -> None:
    vectors, labels = torn_person()
    groups = gather_groups(vectors, labels, no_check)
    groups.changed[:] = False
    free = np.full(15, -1, dtype=np.int32)
    for changed, merges in ((), 0), ((2,), 0), ((1,), 1):
        groups.changed[list(changed)] = True
        _, made = merge_groups(
            groups, np.arange(15), free, threshold=0.6, sizes=GroupingSizes(), between_blocks=no_check
        )
        assert made == merges


def attach(vectors: np.ndarray, labels: list[int], assets: list[int], threshold: float, margin: float) -> list[int]:
    graph = link_all(vectors, len(vectors) - 1)
    groups = gather_groups(vectors, np.array(labels, dtype=np.int32), no_check)
    found = attach_faces(
        vectors,
        graph.neighbours,
        groups,
        np.array(assets),
        threshold=threshold,
        margin=margin,
        between_blocks=no_check,
    )
    np.testing.assert_allclose(found.sums, gather_groups(vectors, found.labels, no_check).sums, atol=1e-5)
    return [int(label) for label in found.labels]


def at_angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_noise_joins_the_nearest_group_above_threshold_and_margin() -> None:
    vectors = at_angles(0, 0, 0, 90, 90, 90, 20, 44, 180)
    labels = [0, 0, 0, 1, 1, 1, -1, -1, -1]
    assert attach(vectors, labels, list(range(9)), 0.5, 0.1)[6:] == [0, -1, -1]
    assert attach(vectors, labels, list(range(9)), 0.5, 0.0)[6:] == [0, 0, -1]
    assert attach(vectors, labels, list(range(9)), 0.95, 0.0)[6:] == [-1, -1, -1]


def test_a_second_face_of_a_photo_does_not_join() -> None:
    vectors = at_angles(0, 0, 0, 10, 20, 5)
    assert attach(vectors, [0, 0, 0, -1, -1, -1], [1, 2, 3, 4, 4, 1], 0.5, 0.0)[3:] == [0, -1, -1]


def test_without_groups_or_noise_nothing_changes() -> None:
    vectors = at_angles(0, 1, 2)
    assert attach(vectors, [-1, -1, -1], [0, 1, 2], 0.5, 0.0) == [-1, -1, -1]
    assert attach(vectors, [0, 0, 0], [0, 1, 2], 0.5, 0.0) == [0, 0, 0]


def test_each_step_improves_the_groups(faces_5k: GeneratedFaces) -> None:
    thresholds = calibrate_thresholds(faces_5k.vectors)
    assets = np.arange(5000)
    graph = link_all(faces_5k.vectors, 32, thresholds.knn_floor)
    labels = form_groups(
        graph,
        np.ones(5000, dtype=bool),
        link_floor=thresholds.link_floor,
        min_cluster_size=3,
        min_samples=3,
    )
    merged, _ = merge(faces_5k.vectors, labels, assets, threshold=thresholds.merge)
    merged_labels = merged.labels
    attached = attach_faces(
        faces_5k.vectors,
        graph.neighbours,
        merged,
        assets,
        threshold=thresholds.attach,
        margin=thresholds.attach_margin,
        between_blocks=no_check,
    ).labels
    judged = faces_5k.judged
    formed, joined, whole = (
        measure_agreement(faces_5k.truth[judged], found[judged]) for found in (labels, merged_labels, attached)
    )
    assert formed.pairwise_f1 + 0.02 < joined.pairwise_f1 < whole.pairwise_f1
    assert formed.bcubed_f1 < joined.bcubed_f1 < whole.bcubed_f1
