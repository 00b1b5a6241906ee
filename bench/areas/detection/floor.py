"""The floor: what decode and bare onnxruntime cost, with nothing between them.

Every core runs the same loop at once, as the detector's threads do: decode one photo with OpenCV, run the detector's session on
an input made beforehand, run the recogniser's on crops made beforehand. CPU seconds of all threads, per photo, are what no
detector on these graphs can go below; cores divided by them is the rate no detector can exceed. The recogniser is the
PRelu-free one and its batch the better of one face and one photo's faces, so that the floor owes nothing to a slow kernel.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

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


def measure_floor(pack_folder: Path, photos: Sequence[Path], seconds: float) -> float:
    """Photos per second no detector can exceed here."""
    cv2.setNumThreads(1)
    pack = load_pack(ModelSettings(pack=str(pack_folder)))
    graph = read_graph(pack.recogniser.path)
    bare = Bare(
        open_session(read_graph(pack.detector.path), Provider.CPU),
        open_session(replace_prelu(graph)[0], Provider.CPU),
    )
    prepared = [_prepare(pack, bare, path.read_bytes()) for path in photos]
    ways = [_cpu_per_photo(bare, prepared, seconds / 2, batched=batched) for batched in (False, True)]
    return (os.cpu_count() or 1) / min(ways)


def _cpu_per_photo(bare: Bare, photos: Sequence[Prepared], seconds: float, *, batched: bool) -> float:
    spent: list[tuple[float, int]] = []

    def loop(first: int) -> None:
        begun, until, done = time.thread_time(), time.monotonic() + seconds, 0
        while time.monotonic() < until:
            bare.look(photos[(first + done) % len(photos)], batched=batched)
            done += 1
        spent.append((time.thread_time() - begun, done))

    cores = os.cpu_count() or 1
    threads = [threading.Thread(target=loop, args=(core * len(photos) // cores,)) for core in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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
