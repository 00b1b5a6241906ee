"""Faces whose boxes are known: their key points found by the detector, or estimated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.detection.inference.alignment import ARCFACE_TEMPLATE, similarity_transform, template_for
from services.detection.inference.batcher import Turn
from services.detection.inference.detector import Detections
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import DetectedFace, DetectOptions, GivenFace
from services.detection.inference.given import choose_key_points, estimate_landmarks, view_surroundings
from shared.config import ModelSettings, Provider, Settings
from shared.faces.boxes import Box
from tests.unit.inference.test_parity import as_image

Photos = dict[str, NDArray[np.uint8]]
TURN = Turn("test")


def measure(
    folder: Path, pixels: NDArray[np.uint8], give: Sequence[GivenFace] | None = None
) -> tuple[list[DetectedFace], list[DetectedFace]]:
    """What the detector finds, and what is measured of ``give``, or else of the found boxes."""

    async def run() -> tuple[list[DetectedFace], list[DetectedFace]]:
        engine = await FaceEngine.load(Settings(model=ModelSettings(pack=str(folder), provider=Provider.CPU)))
        try:
            image = as_image(pixels)
            found = await engine.detect(image, DetectOptions(0.5, 0, 0, 100), TURN)
            given = give if give is not None else [GivenFace(str(n), face.box, None) for n, face in enumerate(found)]
            return found, await engine.measure(image, given, TURN, min_confidence=0.5)
        finally:
            await engine.close()

    return asyncio.run(run())


def crowded(photos: Photos) -> NDArray[np.uint8]:
    """Several photos side by side, so that there are more faces than one turn takes."""
    drawn = [pixels for name, pixels in photos.items() if name.startswith("drawn")]
    height = max(pixels.shape[0] for pixels in drawn)
    return np.hstack([np.pad(pixels, ((0, height - pixels.shape[0]), (0, 0), (0, 0))) for pixels in drawn])


def test_boxes_alone_give_nearly_the_embeddings_of_detection(pack_folder: Path, photos: Photos) -> None:
    for name, pixels in photos.items():
        found, measured = measure(pack_folder, pixels)
        for face, again in zip(found, measured, strict=True):
            assert again.box == face.box
            assert face.embedding is not None
            assert again.embedding is not None
            if again.confidence:
                assert float(face.embedding @ again.embedding) >= 0.8, name


def test_more_faces_than_a_turn_takes_keep_their_order(pack_folder: Path, photos: Photos) -> None:
    found, _ = measure(pack_folder, crowded(photos))
    assert found
    boxes = [face.box for face in found] * (20 // len(found) + 1)
    given = [GivenFace(f"face {n}", box, None) for n, box in enumerate(boxes)]
    _, measured = measure(pack_folder, crowded(photos), given)
    assert [face.given_id for face in measured] == [face.given_id for face in given]
    assert [face.box for face in measured] == boxes


def test_given_landmarks_are_taken_as_they_are(pack_folder: Path, photos: Photos) -> None:
    pixels = crowded(photos)
    found, _ = measure(pack_folder, pixels)
    given = [GivenFace(str(n), face.box, face.landmarks) for n, face in enumerate(found)]
    _, measured = measure(pack_folder, pixels, given)
    assert measured
    for face, again in zip(found, measured, strict=True):
        assert face.embedding is not None
        assert again.embedding is not None
        assert float(face.embedding @ again.embedding) >= 0.99999
        assert again.confidence == 0.0
        assert again.quality.confidence is None
        assert again.quality.overall > 0


def test_estimated_points_are_an_upright_face_in_the_middle_of_the_box() -> None:
    box = Box(100, 200, 84, 100)
    points = estimate_landmarks(box)
    assert points.dtype == np.float32
    assert points[:2, 1].mean() == pytest.approx(240, abs=0.5)
    assert points[3:, 1].mean() == pytest.approx(277, abs=0.5)
    assert points[[0, 1, 3, 4], 0].mean() == pytest.approx(142, abs=0.5)
    # Nothing but moved and scaled: the crop is upright.
    matrix = similarity_transform(points, template_for(112))
    assert matrix[1, 0] == pytest.approx(0, abs=1e-6)
    assert np.allclose(points @ matrix[:, :2].T + matrix[:, 2], ARCFACE_TEMPLATE, atol=1e-3)
    # A box of another shape is read as one of the same area.
    wide = estimate_landmarks(Box(142 - 60, 250 - 35, 120, 70))
    assert np.allclose(wide, points, atol=0.2)


def test_the_detection_that_overlaps_most_is_taken_and_no_other() -> None:
    boxes = np.array([[0, 0, 50, 50], [95, 95, 205, 205], [120, 120, 240, 240]], np.float32)
    landmarks = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    seen = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), landmarks)
    chosen = choose_key_points(Box(100, 100, 100, 100), seen)
    assert chosen.confidence == pytest.approx(0.8)
    assert np.array_equal(chosen.landmarks, landmarks[1])
    away = choose_key_points(Box(400, 400, 100, 100), seen)
    assert away.confidence == 0.0
    assert np.array_equal(away.landmarks, estimate_landmarks(Box(400, 400, 100, 100)))


def test_surroundings_end_at_the_photo_and_know_where_they_are() -> None:
    pixels = np.zeros((400, 600, 3), np.uint8)
    view = view_surroundings(pixels, Box(-10, 300, 50, 60), 0.5)
    assert (view.left, view.top) == (0, 180)
    assert view.pixels.shape == (220, 160, 3)
    seen = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))
    moved = view.to_photo(seen)
    assert moved.boxes.tolist() == [[0, 180, 0, 180]]
    assert moved.landmarks[0, 0].tolist() == [0, 180]
