"""What the two networks learn from: drawn once into uint8 files, then read by every epoch.

Only identities of `SeedSpace.TRAINING` are drawn here. Thresholds are fitted on `SeedSpace.VALIDATION` and the
demo's albums show `SeedSpace.ALBUM`: no face of either is ever trained on.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from insightface.model_zoo.scrfd import SCRFD
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from demo.drawing.identity import SeedSpace, draw_identity
from demo.drawing.photo import Sitter, draw_photo, draw_portrait
from demo.pack.alignment import CROP, crop_face

DETECTOR_SIDE = 640
MAX_FACES = 6
_SEEN_SHARE = 0.85
_TRUTH_COLUMNS = 14
"""x1, y1, x2, y2 and five (x, y) landmarks; rows without a face are -1."""


@dataclass(frozen=True, slots=True)
class FaceCrops:
    """Aligned crops (identities, views, 112, 112, 3) uint8 RGB.

    `looseness` is how much of a cycle's movement training adds: less where a detector aligned them.
    """

    pixels: NDArray[np.uint8]
    looseness: float = 1.0


@dataclass(frozen=True, slots=True)
class DetectorScenes:
    """Letterboxed photos (n, 640, 640, 3) uint8 RGB and truth (n, 6, 14) float32, padded with -1."""

    pixels: NDArray[np.uint8]
    truth: NDArray[np.float32]


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def draw_views(space: SeedSpace, seed: int, number: int, views: int) -> NDArray[np.uint8]:
    """Aligned crops (views, 112, 112, 3) RGB of one identity, over the nuisances of an album and a little more."""
    person = draw_identity(space, seed, number)
    rng = np.random.default_rng(np.random.SeedSequence([int(space), seed, number, 1]))
    middle = rng.uniform(20, 68)
    crops = np.empty((views, CROP, CROP, 3), np.uint8)
    for view in range(views):
        height = float(np.exp(rng.uniform(np.log(32), np.log(190))))
        age = float(np.clip(middle + rng.uniform(-7, 7), 14, 80))
        photo = draw_portrait(rng, Sitter("", person, age), height, nuisance=1.15)
        image = _jpeg(photo.image, int(rng.integers(68, 96)))
        jitter = rng.normal(0, 0.012 * height + 0.35, (5, 2)).astype(np.float32)
        crops[view] = crop_face(image, photo.faces[0].landmarks + jitter)[:, :, ::-1]
    return crops


def _find_landmarks(
    detector: SCRFD, portraits: Sequence[NDArray[np.uint8]], rng: np.random.Generator
) -> list[NDArray[np.float32] | None]:
    """The landmarks (5, 2) the detector sees in each portrait, in its pixels; None where it sees no face.

    The portraits lie in the cells of one sheet, scaled down as photos are before detection.
    """
    across = math.ceil(math.sqrt(len(portraits)))
    cell = DETECTOR_SIDE // across
    sheet = rng.integers(0, 256, (1, 1, 3)).astype(np.uint8).repeat(DETECTOR_SIDE, 0).repeat(DETECTOR_SIDE, 1)
    scales = []
    for place, portrait in enumerate(portraits):
        side = round(min(cell, portrait.shape[0] * float(rng.choice((0.5, 0.625, 1.0), p=(0.6, 0.25, 0.15)))))
        top, left = (place // across) * cell, (place % across) * cell
        sheet[top : top + side, left : left + side] = cv2.resize(portrait, (side, side))
        scales.append(side / portrait.shape[0])
    boxes, landmarks = detector.detect(sheet)
    found: list[NDArray[np.float32] | None] = [None] * len(portraits)
    for box, points in zip(boxes, landmarks, strict=True):
        column, row = int((box[0] + box[2]) / 2 // cell), int((box[1] + box[3]) / 2 // cell)
        place = row * across + column
        if column < across and place < len(portraits) and found[place] is None:
            found[place] = np.asarray((points - (column * cell, row * cell)) / scales[place], np.float32)
    return found


def draw_seen_views(space: SeedSpace, seed: int, number: int, views: int, detector: SCRFD) -> NDArray[np.uint8]:
    """Crops as `draw_views` has them, most of them (`_SEEN_SHARE`) aligned by the landmarks the detector sees."""
    person = draw_identity(space, seed, number)
    rng = np.random.default_rng(np.random.SeedSequence([int(space), seed, number, 3]))
    middle = rng.uniform(20, 68)
    portraits, marks = [], []
    for _ in range(views):
        height = float(np.exp(rng.uniform(np.log(34), np.log(150))))
        age = float(np.clip(middle + rng.uniform(-7, 7), 14, 80))
        photo = draw_portrait(rng, Sitter("", person, age), height, nuisance=1.1)
        portraits.append(_jpeg(photo.image, int(rng.integers(70, 96))))
        jitter = rng.normal(0, 0.012 * height + 0.35, (5, 2)).astype(np.float32)
        marks.append(photo.faces[0].landmarks + jitter)
    crops = np.empty((views, CROP, CROP, 3), np.uint8)
    for view, seen in enumerate(_find_landmarks(detector, portraits, rng)):
        points = seen if seen is not None and rng.random() < _SEEN_SHARE else marks[view]
        crops[view] = crop_face(portraits[view], points)[:, :, ::-1]
    return crops


def draw_scene(space: SeedSpace, seed: int, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """One photo as the detector sees it: scaled to fit 640x640 at the upper left, with its truth rows."""
    rng = np.random.default_rng(np.random.SeedSequence([int(space), seed, number, 2]))
    count = int(rng.choice(7, p=(0.06, 0.2, 0.18, 0.16, 0.14, 0.13, 0.13)))
    sitters = [
        Sitter("", draw_identity(space, seed, int(rng.integers(2**31))), float(rng.uniform(14, 80)))
        for _ in range(count)
    ]
    width, height = ((1280, 960), (1024, 768), (960, 1280), (640, 640))[int(rng.integers(4))]
    photo = draw_photo(rng, sitters, width, height, nuisance=1.15)
    image = _jpeg(photo.image, int(rng.integers(68, 96)))
    scale = DETECTOR_SIDE / max(width, height)
    resized = cv2.resize(image, (round(width * scale), round(height * scale)))
    pixels = np.zeros((DETECTOR_SIDE, DETECTOR_SIDE, 3), np.uint8)
    pixels[: resized.shape[0], : resized.shape[1]] = resized[:, :, ::-1]
    truth = np.full((MAX_FACES, _TRUTH_COLUMNS), -1, np.float32)
    for row, face in enumerate(photo.faces):
        corner = face.box[:2] + face.box[2:]
        truth[row] = np.concatenate((face.box[:2], corner, face.landmarks.ravel())) * scale
    return pixels, truth


def _fill_crops(path: Path, shape: tuple[int, ...], space: SeedSpace, seed: int, first: int, last: int) -> None:
    file = np.lib.format.open_memmap(path, mode="r+")
    for number in range(first, last):
        file[number] = draw_views(space, seed, number, shape[1])
    file.flush()


def _fill_seen_crops(
    path: Path, shape: tuple[int, ...], seed: int, detector_file: Path, numbered_from: int, first: int, last: int
) -> None:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    session = InferenceSession(str(detector_file), options, providers=["CPUExecutionProvider"])
    detector = SCRFD(str(detector_file), session)
    detector.prepare(ctx_id=-1, input_size=(DETECTOR_SIDE, DETECTOR_SIDE), det_thresh=0.5)
    file = np.lib.format.open_memmap(path, mode="r+")
    for number in range(first, last):
        file[number] = draw_seen_views(SeedSpace.TRAINING, seed, numbered_from + number, shape[1], detector)
    file.flush()


def _fill_scenes(folder: Path, space: SeedSpace, seed: int, first: int, last: int) -> None:
    pixels = np.lib.format.open_memmap(folder / "scenes.npy", mode="r+")
    truth = np.lib.format.open_memmap(folder / "scenes_truth.npy", mode="r+")
    for number in range(first, last):
        pixels[number], truth[number] = draw_scene(space, seed, number)
    pixels.flush()
    truth.flush()


def _spans(total: int, parts: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, total, parts + 1).astype(int)
    return [(int(low), int(high)) for low, high in pairwise(edges)]


def load_crops(
    cache: Path, seed: int, identities: int, views: int, workers: int, space: SeedSpace = SeedSpace.TRAINING
) -> FaceCrops:
    """The training crops, drawn into the cache folder first if they are not there for this seed and size."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"crops-{space.name.lower()}-{seed}-{identities}x{views}.npy"
    if not path.exists():
        shape = (identities, views, CROP, CROP, 3)
        part = path.with_suffix(".part.npy")
        np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape).flush()
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [
                pool.submit(_fill_crops, part, shape, space, seed, *span) for span in _spans(identities, workers * 8)
            ]
            for job in jobs:
                job.result()
        part.rename(path)
    return FaceCrops(np.load(path, mmap_mode="r"))


def load_seen_crops(
    cache: Path, seed: int, numbered_from: int, identities: int, views: int, detector_file: Path, workers: int
) -> FaceCrops:
    """Further identities, aligned by a trained detector; drawn into the cache folder first if they are not there."""
    path = cache / f"crops-seen-{seed}-{numbered_from}-{identities}x{views}.npy"
    if not path.exists():
        shape = (identities, views, CROP, CROP, 3)
        part = path.with_suffix(".part.npy")
        np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape).flush()
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [
                pool.submit(_fill_seen_crops, part, shape, seed, detector_file, numbered_from, *span)
                for span in _spans(identities, workers * 8)
            ]
            for job in jobs:
                job.result()
        part.rename(path)
    return FaceCrops(np.load(path, mmap_mode="r"), looseness=0.3)


def load_scenes(cache: Path, seed: int, scenes: int, workers: int) -> DetectorScenes:
    """The detector's scenes, drawn into the cache folder first if they are not there for this seed and size."""
    folder = cache / f"scenes-{seed}-{scenes}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        shape = (scenes, DETECTOR_SIDE, DETECTOR_SIDE, 3)
        np.lib.format.open_memmap(part / "scenes.npy", mode="w+", dtype=np.uint8, shape=shape).flush()
        rows = (scenes, MAX_FACES, _TRUTH_COLUMNS)
        np.lib.format.open_memmap(part / "scenes_truth.npy", mode="w+", dtype=np.float32, shape=rows).flush()
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [
                pool.submit(_fill_scenes, part, SeedSpace.TRAINING, seed, *span) for span in _spans(scenes, workers * 8)
            ]
            for job in jobs:
                job.result()
        part.rename(folder)
    return DetectorScenes(
        np.load(folder / "scenes.npy", mmap_mode="r"), np.load(folder / "scenes_truth.npy", mmap_mode="r")
    )
