"""The second look at large photos: what it finds, when it is taken, and that no face comes twice."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.detection.inference.batcher import Turn
from services.detection.inference.detector import Detections
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import DetectedFace, DetectOptions
from services.detection.inference.tiles import TileGrid
from services.detection.inference.views import View
from shared.config import ModelSettings, Provider, Settings
from shared.faces.boxes import iou_matrix
from tests.unit.inference.test_parity import as_image

Photos = dict[str, NDArray[np.uint8]]
GRID = TileGrid(640)


def detections(*boxes: tuple[float, float, float, float], scores: tuple[float, ...] = ()) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.array(scores or (0.9,) * count, np.float32),
        np.zeros((count, 5, 2), np.float32),
    )


def blank(width: int, height: int) -> NDArray[np.uint8]:
    return np.zeros((height, width, 3), np.uint8)


def find(folder: Path, pixels: NDArray[np.uint8], *, second_pass: bool) -> list[DetectedFace]:
    async def run() -> list[DetectedFace]:
        engine = await FaceEngine.load(Settings(model=ModelSettings(pack=str(folder), provider=Provider.CPU)))
        try:
            options = DetectOptions(0.5, 16, 0, 500, with_embeddings=False, second_pass=second_pass)
            return await engine.detect(as_image(pixels), options, Turn("test"))
        finally:
            await engine.close()

    return asyncio.run(run())


def rows(faces: list[DetectedFace]) -> NDArray[np.float64]:
    return np.array([[f.box.x, f.box.y, f.box.width, f.box.height] for f in faces], np.float64).reshape(-1, 4)


def test_faces_too_small_for_the_first_look_are_found_by_the_second(pack_folder: Path, photos: Photos) -> None:
    drawn = [pixels for name, pixels in photos.items() if name.startswith("drawn")]
    known = [(pixels, rows(find(pack_folder, pixels, second_pass=False))) for pixels in drawn]
    canvas = np.full((4000, 6000, 3), 128, np.uint8)
    expected = []
    for row, top in enumerate(range(100, 3400, 700)):
        for column, left in enumerate(range(100, 5400, 700)):
            pixels, boxes = known[(row + column) % len(known)]
            small = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            canvas[top : top + small.shape[0], left : left + small.shape[1]] = small[: 4000 - top, : 6000 - left]
            expected.append(boxes * 0.5 + (left, top, 0, 0))
    truth = np.concatenate(expected)
    once, twice = (rows(find(pack_folder, canvas, second_pass=wanted)) for wanted in (False, True))

    def recall(found: NDArray[np.float64]) -> float:
        return float((iou_matrix(truth, found).max(axis=1, initial=0.0) >= 0.5).mean())

    assert recall(once) <= 0.2
    assert recall(twice) >= 0.75
    overlap = iou_matrix(twice, twice)
    np.fill_diagonal(overlap, 0)
    assert overlap.max() <= 0.5, "a face came twice"


def test_a_photo_with_a_face_near_by_is_looked_at_once() -> None:
    large = blank(6000, 4000)
    assert GRID.is_wanted(large, detections(), 2000)
    assert GRID.is_wanted(large, detections((0, 0, 300, 360)), 2000)
    assert not GRID.is_wanted(large, detections((0, 0, 300, 360), (900, 900, 1400, 1500)), 2000)
    assert not GRID.is_wanted(blank(1900, 1400), detections(), 2000)
    assert not GRID.is_wanted(blank(1200, 900), detections(), 100), "one tile would show it as large as before"


@pytest.mark.parametrize(("width", "height"), [(6000, 4000), (4000, 6000), (2000, 300), (9000, 6600), (1281, 1280)])
def test_tiles_cover_the_photo_and_overlap_by_a_fifth(width: int, height: int) -> None:
    tiles = GRID.cut(blank(width, height), 0.5)
    covered = np.zeros((height, width), bool)
    for tile in tiles:
        assert tile.pixels.shape[0] == min(GRID.side, height)
        assert tile.pixels.shape[1] == min(GRID.side, width)
        covered[tile.top : tile.top + tile.pixels.shape[0], tile.left : tile.left + tile.pixels.shape[1]] = True
    assert covered.all()
    for starts in ({tile.left for tile in tiles}, {tile.top for tile in tiles}):
        ordered = sorted(starts)
        assert all(b - a <= GRID.side * 0.8 + 1 for a, b in pairwise(ordered))


def test_a_face_that_a_tile_cuts_is_the_whole_one_of_its_neighbour() -> None:
    pixels = blank(2304, 1280)
    left, right = GRID.cut(pixels, 0.5)
    assert (left.left, right.left) == (0, 1024)
    cut = detections((1200, 100, 1279, 220), scores=(0.95,))
    whole = detections((1200, 100, 1310, 220), (2200, 5, 2303, 110), scores=(0.7, 0.8))
    merged = GRID.merge(pixels, detections(), [left, right], [cut, whole], 0.4)
    # What lies at the photo's own edge is cut by the photo and stays; the better one comes first.
    assert merged.boxes.tolist() == [[2200, 5, 2303, 110], [1200, 100, 1310, 220]]


def test_both_looks_give_a_face_once_by_its_better_score() -> None:
    pixels = blank(4000, 1280)
    tiles: list[View] = GRID.cut(pixels, 0.5)
    first = detections((300, 300, 420, 440), scores=(0.6,))
    seen = [detections((302, 301, 421, 441), scores=(0.8,)), *[detections()] * (len(tiles) - 1)]
    merged = GRID.merge(pixels, first, tiles, seen, 0.4)
    assert merged.boxes.tolist() == [[302, 301, 421, 441]]
    assert merged.scores.tolist() == [pytest.approx(0.8)]
