"""Which imported faces are stored already, and what their places alone tell of them."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from services.detection.domain.importing import ImportedFaces, ImportPlan, ImportTally, estimate_missing, plan_import
from services.detection.inference.given import estimate_landmarks
from services.detection.repository.importing import StoredPlace
from shared.config import QualitySettings
from shared.faces.boxes import Box
from shared.faces.embeddings import decode_embedding, encode_embeddings, normalise, normalise_each
from shared.faces.quality import combine_parts, estimate_pose, interocular_distance, measure_placed
from shared.jobs.model import ItemFailure

A, B = UUID(int=1), UUID(int=2)
Place = tuple[float, float, float, float]
HERE: Place = (0, 0, 100, 100)
# Overlaps with HERE, as IoU: 0.82, 0.6, 0.43.
CLOSE: Place = (10, 0, 100, 100)
NEAR: Place = (25, 0, 100, 100)
OFF: Place = (40, 0, 100, 100)
FAR: Place = (900, 0, 100, 100)


def plan(given: list[tuple[str, Place]], stored: list[tuple[UUID, str, Place]]) -> ImportPlan:
    count = len(given)
    faces = ImportedFaces(
        names=[str(row) for row in range(count)],
        asset_ids=[asset_id for asset_id, _ in given],
        boxes=np.array([box for _, box in given], np.float32).reshape(-1, 4),
        landmarks=np.zeros((count, 5, 2), np.float32),
        seen=np.zeros(count, np.bool_),
        confidences=np.zeros(count, np.float32),
        embeddings=[b""] * count,
        norms=np.ones(count, np.float32),
    )
    return plan_import(faces, [StoredPlace(*place) for place in stored], 0.5)


@pytest.mark.parametrize(
    ("given", "stored", "new", "known"),
    [
        ([], [], [], {}),
        ([("p", HERE)], [], [0], {}),
        ([("p", CLOSE)], [(A, "p", HERE)], [], {0: A}),
        ([("p", OFF)], [(A, "p", HERE)], [0], {}),
        ([("q", HERE)], [(A, "p", HERE)], [0], {}),
        # The closest of two is the stored one; the other one is that face once more.
        ([("p", NEAR), ("p", HERE)], [(A, "p", HERE)], [], {1: A}),
        ([("p", HERE), ("p", FAR)], [(B, "p", FAR), (A, "p", HERE)], [], {0: A, 1: B}),
        ([("p", HERE), ("q", HERE), ("p", CLOSE), ("p", FAR)], [], [0, 1, 3], {}),
        # What is close to a repeat, but not to what is kept, is a face of its own.
        ([("p", HERE), ("p", NEAR), ("p", (50, 0, 100, 100))], [], [0, 2], {}),
    ],
)
def test_faces_are_matched_one_to_one(
    given: list[tuple[str, Place]], stored: list[tuple[UUID, str, Place]], new: list[int], known: dict[int, UUID]
) -> None:
    found = plan(given, stored)
    assert found.new.tolist() == new
    assert dict(zip(found.known.tolist(), found.known_ids, strict=True)) == known
    assert found.matched == len(given) - len(new)


def test_missing_landmarks_are_those_of_the_mean_face_in_the_box() -> None:
    boxes = np.array([[100, 50, 80, 100], [0, 0, 30, 10]], np.float32)
    given = np.full((2, 5, 2), 7, np.float32)
    filled = estimate_missing(boxes, given, np.array([False, True]))
    np.testing.assert_allclose(filled[0], estimate_landmarks(Box(100, 50, 80, 100)), atol=1e-3)
    np.testing.assert_array_equal(filled[1], given[1])


def test_quality_without_pixels_is_that_of_its_known_parts() -> None:
    settings = QualitySettings()
    landmarks: NDArray[np.float32] = np.array(
        [[[20, 40], [55, 44], [40, 62], [24, 80], [52, 82]], [[30, 30], [40, 30], [35, 40], [31, 48], [39, 48]]] * 2,
        np.float32,
    )
    seen, confidences = np.array([True, True, False, False]), np.array([0.9, 0, 0.5, 0], np.float32)
    placed = measure_placed(landmarks, seen, confidences, settings)
    limits = (settings.max_yaw_deg, settings.max_pitch_deg, settings.max_roll_deg)
    for row, (points, pointed, confidence) in enumerate(zip(landmarks, seen, confidences.tolist(), strict=True)):
        head = estimate_pose(points)
        size = min(1.0, interocular_distance(points) / settings.full_interocular_px)
        pose = float(
            np.prod(
                [
                    1 - (angle / limit) ** 2
                    for angle, limit in zip((head.yaw, head.pitch, head.roll), limits, strict=True)
                ]
            )
        )
        parts = (
            {"size": size} | ({"pose": pose} if pointed else {}) | ({"confidence": confidence} if confidence else {})
        )
        assert placed.overall[row] == pytest.approx(combine_parts(parts))
        assert placed.size[row] == pytest.approx(size)
        assert placed.pose[row] == pytest.approx(pose if pointed else 0)
        assert placed.angles[row] == pytest.approx([head.yaw, head.pitch, head.roll] if pointed else [0, 0, 0])


def test_a_face_without_extent_has_no_quality() -> None:
    placed = measure_placed(np.zeros((1, 5, 2)), np.array([True]), np.array([0.9]), QualitySettings())
    assert placed.overall.tolist() == [0]


def test_vectors_that_are_none_are_told_apart() -> None:
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [3e38, 3e38], [1e-3, 0]], np.float32)
    units, lengths, usable = normalise_each(vectors)
    assert usable.tolist() == [True, False, False, False, False, True]
    np.testing.assert_allclose(units[usable], np.array([[0.6, 0.8], [1, 0]], np.float32), rtol=1e-6)
    assert not units[~usable].any()
    assert lengths[0] == 5
    for data, row in zip(encode_embeddings(units[usable]), vectors[usable], strict=True):
        np.testing.assert_allclose(decode_embedding(data), normalise(row), atol=1e-3)


def test_a_tally_names_the_first_failures_and_counts_all() -> None:
    tally = ImportTally()
    for number in range(3):
        other = ImportTally(created=1, matched=2)
        other.fail([ItemFailure(f"{number}.{index}", "INVALID_FIELD", "") for index in range(400)])
        tally.add(other)
    assert (tally.created, tally.matched, tally.failed) == (3, 6, 1200)
    assert [failure.item_id for failure in tally.failures[::333]] == ["0.0", "0.333", "1.266", "2.199"]
    assert len(tally.failures) == 1000
