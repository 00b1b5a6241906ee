"""The floor: what decode and bare onnxruntime cost, with nothing between them.

Every core runs the same loop at once, as the detector's threads do: decode one photo with OpenCV, run the detector's session on
an input made beforehand, run the recogniser's on crops made beforehand. CPU seconds of all threads, per photo, are what no
detector on these graphs can go below; cores divided by them is the rate no detector can exceed. The recogniser is the
PRelu-free one and its batch the better of one face and one photo's faces, so that the floor owes nothing to a slow kernel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bench.rate import Turn
from services.detection.inference.alignment import align_face, template_for
from services.detection.inference.detector import Detector
from services.detection.inference.packs import ModelPack, load_pack, read_graph
from services.detection.inference.rewrite import replace_prelu
from services.detection.inference.session import Session, open_session
from shared.config import DetectionSettings, ModelSettings, Provider

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One photo: its bytes, and the inputs of both models."""

    data: npt.NDArray[np.uint8]
    canvas: Floats
    crops: list[Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Bare:
    """Both sessions with nothing around them."""

    detector: Session
    recogniser: Session

    def look(self, photo: Prepared, *, batched: bool) -> None:
        """What a photo costs at least."""
        cv2.imdecode(photo.data, cv2.IMREAD_COLOR)
        self.detector.run(None, {self.detector.get_inputs()[0].name: photo.canvas})
        name = self.recogniser.get_inputs()[0].name
        for crop in [np.concatenate(photo.crops)] if batched and photo.crops else photo.crops:
            self.recogniser.run(None, {name: crop})


class Floor:
    """A contender that nobody can beat."""

    def __init__(self, pack_folder: Path, photos: Sequence[Path]) -> None:
        cv2.setNumThreads(1)
        pack = load_pack(ModelSettings(pack=str(pack_folder)))
        self._bare = Bare(
            open_session(read_graph(pack.detector.path), Provider.CPU),
            open_session(replace_prelu(read_graph(pack.recogniser.path))[0], Provider.CPU),
        )
        self._photos = [_prepare(pack, self._bare, path.read_bytes()) for path in photos]
        self._cores = os.cpu_count() or 1
        self._at = 0
        singly, batched = (self._spend(1.0, batched=batched) for batched in (False, True))
        self._batched = batched < singly

    def take_turn(self, seconds: float) -> Turn:
        """Photos per second no detector can exceed here and now."""
        return Turn(self._cores / self._spend(seconds, batched=self._batched))

    def _spend(self, seconds: float, *, batched: bool) -> float:
        """CPU seconds per photo with every core at it."""
        spent: list[tuple[float, int]] = []

        def loop(lane: int) -> None:
            begun, until, done = time.thread_time(), time.monotonic() + seconds, 0
            first = self._at + lane * len(self._photos) // self._cores
            while time.monotonic() < until:
                self._bare.look(self._photos[(first + done) % len(self._photos)], batched=batched)
                done += 1
            spent.append((time.thread_time() - begun, done))

        with ThreadPoolExecutor(self._cores) as threads:
            list(threads.map(loop, range(self._cores)))
        self._at += max(done for _, done in spent)
        return sum(cpu for cpu, _ in spent) / sum(done for _, done in spent)


def _prepare(pack: ModelPack, bare: Bare, data: bytes) -> Prepared:
    settings = DetectionSettings()
    encoded = np.frombuffer(data, np.uint8)
    pixels: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    size = pack.detector.fixed_size or settings.det_size
    detector = Detector(bare.detector, pack.detector, size=size, nms_iou=settings.nms_iou, buckets=(1,))
    found = detector.detect([pixels], [settings.min_confidence])[0]
    side, model = pack.recogniser.side, pack.recogniser
    crops = [align_face(pixels, points, template_for(side), side) for points in found.landmarks]
    canvas = np.zeros((size, size, 3), np.uint8)
    scale = size / max(pixels.shape[:2])
    small: Any = cv2.resize(pixels, None, fx=scale, fy=scale)
    canvas[: min(size, small.shape[0]), : min(size, small.shape[1])] = small[:size, :size]
    return Prepared(
        encoded,
        _blob(canvas, size, pack.detector.mean, pack.detector.deviation),
        [_blob(crop, side, model.mean, model.deviation) for crop in crops],
    )


def _blob(picture: npt.NDArray[np.uint8], side: int, mean: float, deviation: float) -> Floats:
    made: Any = cv2.dnn.blobFromImage(picture, 1 / deviation, (side, side), (mean,) * 3, swapRB=True)
    return np.asarray(made, np.float32)
