"""Merging groups and attaching single faces."""

from __future__ import annotations

import numpy as np
import pytest

from bench.embeddings import GeneratedFaces
from services.clustering.grouping.attach import attach_faces
from services.clustering.grouping.forest import form_groups
from services.clustering.grouping.merge import merge_groups
from services.clustering.grouping.thresholds import calibrate_thresholds
from shared.faces.agreement import measure_agreement
from shared.faces.embeddings import normalise
from tests.unit.grouping.conftest import link_all


def torn_person() -> tuple[np.ndarray, np.ndarray]:
    """Ten faces of one person in two groups of five, and five of a stranger."""
    random = np.random.default_rng(0)
    looks = normalise(np.array([[1.0, 0.3, 0, 0], [1.0, -0.3, 0, 0], [0, 0, 0, 1.0]]))
    vectors = normalise(np.repeat(looks, 5, axis=0) + 0.05 * random.standard_normal((15, 4)))
    return vectors, np.repeat(np.arange(3, dtype=np.int32), 5)


def test_alike_groups_merge_and_strangers_do_not() -> None:
    vectors, labels = torn_person()
    merged = merge_groups(vectors, labels, np.arange(15), threshold=0.6, veto_share=0.1)
    np.testing.assert_array_equal(merged.labels, [0] * 10 + [1] * 5)
    assert (merged.merges, merged.vetoed) == (1, 0)


def test_groups_that_share_photos_do_not_merge() -> None:
    vectors, labels = torn_person()
    assets = np.concatenate([np.arange(5), np.arange(5), np.arange(5, 10)])
    merged = merge_groups(vectors, labels, assets, threshold=0.6, veto_share=0.1)
    np.testing.assert_array_equal(merged.labels, labels)
    assert (merged.merges, merged.vetoed) == (0, 1)


@pytest.mark.parametrize(("shared", "merges"), [(0, 1), (2, 1), (3, 0)])
def test_a_small_share_of_common_photos_is_no_veto(shared: int, merges: int) -> None:
    random = np.random.default_rng(1)
    vectors = normalise(np.array([1.0, 0, 0, 0]) + 0.1 * random.standard_normal((40, 4)))
    labels = np.repeat(np.arange(2, dtype=np.int32), 20)
    assets = np.arange(40)
    assets[20 : 20 + shared] = assets[:shared]
    merged = merge_groups(vectors, labels, assets, threshold=0.6, veto_share=0.1)
    assert merged.merges == merges


def test_the_veto_counts_what_was_merged_before() -> None:
    """A and B are one person; C shares photos with A only, and is alike to both."""
    random = np.random.default_rng(2)
    vectors = normalise(np.array([1.0, 0, 0, 0]) + 0.02 * random.standard_normal((15, 4)))
    vectors[10:] = normalise(vectors[10:] + np.array([0, 0.4, 0, 0]))
    labels = np.repeat(np.arange(3, dtype=np.int32), 5)
    assets = np.concatenate([np.arange(10), np.arange(5)])
    merged = merge_groups(vectors, labels, assets, threshold=0.6, veto_share=0.1)
    np.testing.assert_array_equal(merged.labels, [0] * 10 + [1] * 5)


def test_merging_is_by_the_merged_centroid_not_by_a_chain() -> None:
    """A-B and B-C are above the threshold, but C is not alike to A and B together."""
    angles = np.deg2rad([0, 40, 84])
    looks = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vectors = normalise(np.repeat(looks, [10, 5, 5], axis=0))
    labels = np.repeat(np.arange(3, dtype=np.int32), [10, 5, 5])
    merged = merge_groups(vectors, labels, np.arange(20), threshold=0.7, veto_share=0.1)
    np.testing.assert_array_equal(merged.labels, [0] * 15 + [1] * 5)


def attach(vectors: np.ndarray, labels: list[int], assets: list[int], threshold: float, margin: float) -> list[int]:
    graph = link_all(vectors, len(vectors) - 1)
    found = attach_faces(
        vectors,
        graph.neighbours,
        np.array(labels, dtype=np.int32),
        np.array(assets),
        threshold=threshold,
        margin=margin,
    )
    return [int(label) for label in found]


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
    merged = merge_groups(faces_5k.vectors, labels, assets, threshold=thresholds.merge, veto_share=0.1).labels
    attached = attach_faces(
        faces_5k.vectors,
        graph.neighbours,
        merged,
        assets,
        threshold=thresholds.attach,
        margin=thresholds.attach_margin,
    )
    judged = faces_5k.judged
    formed, joined, whole = (
        measure_agreement(faces_5k.truth[judged], found[judged]) for found in (labels, merged, attached)
    )
    assert formed.pairwise_f1 + 0.02 < joined.pairwise_f1 < whole.pairwise_f1
    assert formed.bcubed_f1 < joined.bcubed_f1 < whole.bcubed_f1
