"""SCRFD (Guo et al., 2021): upright photos to boxes, scores and five key points, equal to InsightFace's result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from services.detection.inference.packs import DetectorModel
from services.detection.inference.planes import Blobs
from services.detection.inference.session import Session

# Candidates per photo that go into non-maximum suppression. Photos have hundreds; a picture made to be
# hostile, or a threshold of zero, has every anchor, and suppression is quadratic.
_MAX_CANDIDATES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Faces of one photo by falling score: ``boxes`` (N, 4) x1 y1 x2 y2, ``scores`` (N,), ``landmarks`` (N, 5, 2),
    all float32.

    Pixels of the upright photo. Boxes may reach beyond its edge.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]


class Detector:
    """Runs an SCRFD session at one square input size. May be used by several threads at once."""

    def __init__(
        self, session: Session, model: DetectorModel, *, size: int, nms_iou: float, buckets: Sequence[int]
    ) -> None:
        """``buckets`` are the batch sizes to run, rising; (1,) unless the graph is batchable."""
        self._session = session
        self._input = session.get_inputs()[0].name
        self._model = model
        self._size = size
        self._blobs = Blobs(size, model.mean, model.deviation)
        self._nms_iou = nms_iou
        self._buckets = tuple(buckets)
        self._centres = tuple(_anchor_centres(size, stride, model.anchors) for stride in model.strides)

    @property
    def size(self) -> int:
        """Side of the input, in pixels."""
        return self._size

    @property
    def nms_iou(self) -> float:
        """Of two boxes that overlap more, the worse is dropped."""
        return self._nms_iou

    def detect(self, photos: Sequence[NDArray[np.uint8]], min_scores: Sequence[float]) -> list[Detections]:
        """Detect faces in (H, W, 3) uint8 BGR photos, each at its own least score (0..1)."""
        found: list[Detections] = []
        largest = self._buckets[-1]
        for start in range(0, len(photos), largest):
            chunk = photos[start : start + largest]
            found += self._detect_chunk(chunk, min_scores[start : start + largest])
        return found

    def _detect_chunk(self, photos: Sequence[NDArray[np.uint8]], min_scores: Sequence[float]) -> list[Detections]:
        bucket = next(size for size in self._buckets if size >= len(photos))
        blob = self._blobs.take(bucket)
        scales = [self._letterbox(photo, blob[row]) for row, photo in enumerate(photos)]
        outputs = self._run(blob)
        return [
            self._read_outputs([output[row] for output in outputs], scale, min_score)
            for row, (scale, min_score) in enumerate(zip(scales, min_scores, strict=True))
        ]

    def _run(self, blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        outputs = self._session.run(None, {self._input: blob})
        # Exports without a batch axis give (anchors, k).
        return [output if output.ndim == 3 else output[None] for output in outputs]

    def _letterbox(self, photo: NDArray[np.uint8], planes: NDArray[np.float32]) -> float:
        """Draw ``photo`` into the top left of ``planes``, as large as it fits; returns input pixels per photo pixel."""
        height, width = photo.shape[:2]
        ratio = height / width
        if ratio > 1:
            new_height, new_width = self._size, max(1, int(self._size / ratio))
        else:
            new_height, new_width = max(1, int(self._size * ratio)), self._size
        self._blobs.write(np.asarray(cv2.resize(photo, (new_width, new_height)), np.uint8), planes)
        return float(new_height / height)

    def _read_outputs(self, outputs: Sequence[NDArray[np.float32]], scale: float, min_score: float) -> Detections:
        levels = len(self._model.strides)
        boxes: list[NDArray[np.float32]] = [np.empty((0, 4), np.float32)]
        scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
        landmarks: list[NDArray[np.float32]] = [np.empty((0, 5, 2), np.float32)]
        shrink = np.float32(scale)
        for level, stride in enumerate(self._model.strides):
            level_scores = outputs[level][:, 0]
            hits = np.flatnonzero(level_scores >= min_score)
            if not hits.size:
                continue
            centres = self._centres[level][hits]
            reach = outputs[level + levels][hits] * np.float32(stride)
            offsets = outputs[level + 2 * levels][hits].reshape(-1, 5, 2) * np.float32(stride)
            boxes.append(np.concatenate([centres - reach[:, :2], centres + reach[:, 2:]], axis=1))
            landmarks.append(centres[:, None] + offsets)
            scores.append(level_scores[hits])
        all_scores = np.concatenate(scores)
        # Stable, as InsightFace sorts: equal scores keep the order of the anchors.
        order = np.argsort(-all_scores, kind="stable")[:_MAX_CANDIDATES]
        sorted_boxes: NDArray[np.float32] = np.concatenate(boxes)[order] / shrink
        keep = suppress_overlaps(sorted_boxes, self._nms_iou)
        return Detections(
            boxes=sorted_boxes[keep],
            scores=all_scores[order][keep],
            landmarks=np.concatenate(landmarks)[order][keep] / shrink,
        )


def suppress_overlaps(boxes: NDArray[np.float32], max_iou: float) -> list[int]:
    """Greedy non-maximum suppression: rows of ``boxes`` (N, 4; x1 y1 x2 y2, best first) that no better row overlaps
    too much.

    Sides count one pixel more than their difference, as InsightFace has it.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left + 1) * (bottom - top + 1)
    order = np.arange(len(boxes))
    keep: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        width = np.maximum(0.0, np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1)
        height = np.maximum(0.0, np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1)
        shared_area = width * height
        order = rest[shared_area / (areas[best] + areas[rest] - shared_area) <= max_iou]
    return keep


def _anchor_centres(size: int, stride: int, anchors: int) -> NDArray[np.float32]:
    """(cells * anchors, 2) x, y of the anchors of one level, row by row, in input pixels."""
    cells = size // stride
    rows, columns = np.mgrid[:cells, :cells].astype(np.float32) * np.float32(stride)
    return np.repeat(np.stack([columns, rows], axis=-1).reshape(-1, 2), anchors, axis=0)
