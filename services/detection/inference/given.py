"""Where the key points of a face are whose box is known.

The detector is shown the box with its surroundings. Where it sees no face that fits, the points are those of the mean
face: the ArcFace template laid into the box. How high in a box the eyes and the mouth lie was measured on SCRFD's own
boxes (two detectors, real and drawn photos: eyes at 0.38 to 0.43 of the height, mouth at 0.71 to 0.80). Embeddings by
estimated points are a makeshift: their cosine with those by detected points has median 0.55 to 0.77, on turned heads
down to 0.2, where those of different people have -0.04 to 0.02. So their confidence is 0, and with it their quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.detection.inference.alignment import ARCFACE_TEMPLATE
from services.detection.inference.detector import Detections
from services.detection.inference.views import View, cut_view
from shared.faces.boxes import Box, iou_matrix
from shared.imaging.decode import Pixels

# What the detector sees reaches beyond the box by this share of its longer side, on each side: a face that fills a fifth
# of a detector's input is of a size it was trained for (measured: with 0.5 one detector missed a quarter of the faces).
_SURROUNDINGS = 2.0
# A detection that overlaps the box less is another face.
_SAME_FACE_IOU = 0.3

_EYES_AT, _MOUTH_AT = 0.40, 0.77
# Width to height of a detector's box. A box drawn by hand is read as one of that shape with its centre and its area.
_ASPECT = 0.84

_EYES_Y = float(ARCFACE_TEMPLATE[:2, 1].mean())
_MOUTH_Y = float(ARCFACE_TEMPLATE[3:, 1].mean())
_MIDDLE_X = float(ARCFACE_TEMPLATE[[0, 1, 3, 4], 0].mean())


@dataclass(frozen=True, slots=True, eq=False)
class KeyPoints:
    """(5, 2) float32 in pixels of the upright photo; ``confidence`` is the detector's, 0 if they were estimated."""

    landmarks: NDArray[np.float32]
    confidence: float


def view_surroundings(pixels: Pixels, box: Box, min_score: float) -> View:
    """What the detector is shown of ``pixels`` to find the face of ``box``, whose centre lies in the photo."""
    extra = _SURROUNDINGS * max(box.width, box.height)
    left, top = math.floor(box.x - extra), math.floor(box.y - extra)
    right, bottom = math.ceil(box.x + box.width + extra), math.ceil(box.y + box.height + extra)
    return cut_view(pixels, left, top, right, bottom, min_score)


def choose_key_points(box: Box, seen: Detections) -> KeyPoints:
    """The key points of the detection that is the face of ``box``, or estimated ones if none is.

    ``seen`` is in pixels of the upright photo, as the box.
    """
    if len(seen.boxes):
        rows = np.hstack([seen.boxes[:, :2], seen.boxes[:, 2:] - seen.boxes[:, :2]])
        overlap = iou_matrix(np.array([[box.x, box.y, box.width, box.height]]), rows)[0]
        best = int(overlap.argmax())
        if overlap[best] >= _SAME_FACE_IOU:
            return KeyPoints(seen.landmarks[best], float(seen.scores[best]))
    return KeyPoints(estimate_landmarks(box), 0.0)


def estimate_landmarks(box: Box) -> NDArray[np.float32]:
    """The mean face upright in ``box``, seen from the front: (5, 2) float32."""
    height = math.sqrt(box.width * box.height / _ASPECT)
    scale = (_MOUTH_AT - _EYES_AT) * height / (_MOUTH_Y - _EYES_Y)
    middle = (box.x + box.width / 2, box.y + box.height / 2 + (_EYES_AT - 0.5) * height)
    return ((ARCFACE_TEMPLATE - (_MIDDLE_X, _EYES_Y)) * scale + middle).astype(np.float32)
