"""Quality falls with everything that spoils a face; boxes pair one to one."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.detection.inference.alignment import ARCFACE_TEMPLATE
from shared.config import QualitySettings
from shared.faces.boxes import iou_matrix, match_boxes
from shared.faces.quality import (
    FaceQuality,
    combine_parts,
    estimate_pose,
    interocular_distance,
    measure_quality,
)

SETTINGS = QualitySettings()
NOISE = np.random.default_rng(9).integers(0, 256, (40, 40, 3), dtype=np.uint8)
CROP: NDArray[np.uint8] = np.asarray(cv2.resize(NOISE, (112, 112)), np.uint8)
# A mean face in inter-ocular distances: x right, y down, z towards the viewer; the mouth lies in the plane of the
# eyes.
HEAD = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.572, 0.5], [-0.414, 1.156, 0], [0.414, 1.156, 0]])


def turned_head(*, yaw: float = 0, pitch: float = 0, roll: float = 0, scale: float = 60) -> NDArray[np.float64]:
    """Landmarks of the mean face, turned to the viewer's right, up, and clockwise, without perspective."""
    y, p, r = (math.radians(angle) for angle in (yaw, pitch, roll))
    about_y = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]])
    about_z = np.array([[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]])
    turned = HEAD @ (about_z @ about_y @ about_x).T
    return np.asarray(turned[:, :2] * scale + np.array([300.0, 200.0]), np.float64)


def measure(landmarks: NDArray[np.float64], crop: NDArray[np.uint8] = CROP, confidence: float = 0.9) -> FaceQuality:
    return measure_quality(landmarks=landmarks, crop=crop, confidence=confidence, settings=SETTINGS)


def assert_falling(values: list[float]) -> None:
    assert all(a > b for a, b in itertools.pairwise(values)), values


@pytest.mark.parametrize("angle", [-60, -30, -10, 0, 10, 30, 60])
def test_single_angles_are_found(angle: float) -> None:
    yaw, pitch = estimate_pose(turned_head(yaw=angle)), estimate_pose(turned_head(pitch=angle))
    assert yaw.yaw == pytest.approx(angle, abs=1)
    assert pitch.pitch == pytest.approx(angle, abs=1)
    assert yaw.pitch == pytest.approx(0, abs=1)
    assert pitch.yaw == pytest.approx(0, abs=1)
    assert estimate_pose(turned_head(roll=angle)).roll == pytest.approx(angle, abs=0.1)


def test_the_template_looks_straight_ahead() -> None:
    head = estimate_pose(ARCFACE_TEMPLATE)
    assert max(abs(head.yaw), abs(head.pitch), abs(head.roll)) < 2


def test_yaw_survives_roll() -> None:
    head = estimate_pose(turned_head(yaw=30, roll=40))
    assert head.yaw == pytest.approx(30, abs=2)
    assert head.roll == pytest.approx(40, abs=2)


@pytest.mark.parametrize("axis", ["yaw", "pitch", "roll"])
def test_turning_away_lowers_quality(axis: str) -> None:
    for sign in (1, -1):
        found = [measure(turned_head(**{axis: sign * angle})) for angle in (5, 15, 25, 35, 45)]
        assert_falling([quality.pose for quality in found])
        assert_falling([quality.overall for quality in found])


def test_smaller_faces_are_worse() -> None:
    found = [measure(turned_head(scale=scale)) for scale in (38, 28, 18, 8)]
    assert_falling([quality.size for quality in found])
    assert_falling([quality.overall for quality in found])
    assert measure(turned_head(scale=400)).size == 1.0


def test_size_is_not_lost_by_turning() -> None:
    assert interocular_distance(turned_head(yaw=60)) == pytest.approx(60, rel=0.02)
    assert interocular_distance(turned_head(pitch=50)) == pytest.approx(60, rel=0.02)


def test_blur_lowers_quality() -> None:
    blurred = [np.asarray(cv2.GaussianBlur(CROP, (0, 0), sigma), np.uint8) for sigma in (2, 3, 4, 6)]
    found = [measure(turned_head(), crop) for crop in blurred]
    assert_falling([quality.laplacian_variance for quality in found])
    assert_falling([quality.overall for quality in found])


def test_black_beyond_the_edge_is_not_sharpness() -> None:
    soft = np.asarray(cv2.GaussianBlur(CROP, (0, 0), 4), np.uint8)
    cut = soft.copy()
    cut[:, :20] = 0
    assert measure(turned_head(), cut).laplacian_variance == measure(turned_head(), soft).laplacian_variance


def test_confidence_and_norm_count() -> None:
    assert_falling([measure(turned_head(), confidence=confidence).overall for confidence in (0.95, 0.7, 0.5)])

    def with_norm(norm: float) -> FaceQuality:
        return measure_quality(
            landmarks=turned_head(),
            crop=CROP,
            confidence=0.9,
            settings=SETTINGS,
            embedding_norm=norm,
            norm_range=(5.0, 25.0),
        )

    found = [with_norm(norm) for norm in (24.0, 15.0, 8.0)]
    assert_falling([quality.overall for quality in found])
    assert found[1].norm == pytest.approx(0.5)
    assert measure(turned_head()).norm is None


def test_overall_is_the_weighted_geometric_mean() -> None:
    assert combine_parts({"size": 0.5, "sharpness": 0.5, "pose": 0.5, "confidence": 0.5}) == pytest.approx(0.5)
    assert combine_parts({"size": 0.25, "pose": 1.0}) == pytest.approx(0.5)
    assert combine_parts({"size": 0.0, "pose": 1.0}) == 0.0


def test_collapsed_landmarks_give_finite_figures() -> None:
    quality = measure(np.full((5, 2), 10.0))
    assert 0.0 <= quality.overall <= 1.0
    assert all(math.isfinite(angle) for angle in (quality.head.yaw, quality.head.pitch, quality.head.roll))


def test_iou() -> None:
    first = np.array([[0, 0, 10, 10], [100, 100, 5, 5], [3, 3, 0, 0]])
    second = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 10, 10]])
    overlap = iou_matrix(first, second)
    assert overlap.shape == (3, 3)
    np.testing.assert_allclose(overlap, np.array([[1, 1 / 3, 0], [0, 0, 0], [0, 0, 0]]))
    assert iou_matrix(np.empty((0, 4)), second).shape == (0, 3)


def test_matching_is_one_to_one_best_first() -> None:
    stored = np.array([[0, 0, 10, 10], [4, 0, 10, 10]])
    found = np.array([[3, 0, 10, 10], [50, 50, 10, 10]])
    assert [(row, column) for row, column, _ in match_boxes(stored, found, 0.3)] == [(1, 0)]
    pairs = match_boxes(stored, np.array([[3.5, 0, 10, 10], [0.5, 0, 10, 10]]), 0.3)
    assert [(row, column) for row, column, _ in pairs] == [(0, 1), (1, 0)]
    assert match_boxes(stored, np.empty((0, 4)), 0.5) == []
    with pytest.raises(ValueError, match="above 0"):
        match_boxes(stored, found, 0)
