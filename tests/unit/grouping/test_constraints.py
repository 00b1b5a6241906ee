"""Anchors over formed groups."""

from __future__ import annotations

import numpy as np

from services.clustering.grouping.constraints import apply_anchors, name_anchored_groups
from tests.unit.grouping.conftest import no_check


def apply(labels: list[int], anchors: list[int], degrees: list[float] | None = None) -> list[int]:
    radians = np.deg2rad(degrees or [0.0] * len(labels))
    vectors = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    found = apply_anchors(vectors, np.array(labels, dtype=np.int32), np.array(anchors, dtype=np.int32), no_check)
    assert found.dtype == np.int32
    return [int(label) for label in found]


def test_without_anchors_nothing_changes() -> None:
    assert apply([1, 0, 0, -1, 1], [-1] * 5) == [1, 0, 0, -1, 1]


def test_scattered_faces_of_an_anchor_become_one_group() -> None:
    assert apply([0, 0, 1, 1, -1, 2, 2], [4, -1, 4, -1, 4, -1, -1]) == [0, 1, 0, 2, 0, 3, 3]


def test_a_group_belongs_to_the_anchor_that_has_its_home_there() -> None:
    """Two of three faces of anchor 4 lie in group 0, whose free faces come along; the third takes nobody with it."""
    assert apply([0, 0, 0, 1, 1, 1], [4, 4, -1, 4, -1, -1]) == [0, 0, 0, 0, 1, 1]


def test_free_faces_of_a_torn_group_go_to_the_nearest_anchor() -> None:
    labels, degrees = [0] * 6, [0.0, 5.0, 10.0, 40.0, 45.0, 50.0]
    assert apply(labels, [2, -1, -1, -1, -1, 7], degrees) == [0, 0, 0, 1, 1, 1]
    assert apply(labels, [7, -1, -1, -1, -1, 2], degrees) == [1, 1, 1, 0, 0, 0]


def test_an_anchor_of_noise_alone_is_a_group_and_other_noise_stays() -> None:
    assert apply([-1, -1, -1], [8, -1, 8]) == [0, -1, 0]


def test_groups_are_named_by_their_anchor() -> None:
    labels, anchors = np.array([1, 1, 0, -1, 2], dtype=np.int32), np.array([-1, 9, -1, 5, 0], dtype=np.int32)
    assert name_anchored_groups(labels, anchors, 3).tolist() == [-1, 9, 0]
