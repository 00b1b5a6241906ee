"""The 5-point alignment of InsightFace's `norm_crop`, without its dependencies, for drawing training crops.

The template is InsightFace's `arcface_dst`; the similarity is the least-squares one of Umeyama (1991).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

CROP = 112
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def fit_similarity(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """The (2, 3) similarity that maps landmarks (5, 2) onto the template with the least squared error."""
    source = landmarks.astype(np.float64)
    source_mean, target_mean = source.mean(axis=0), _TEMPLATE.mean(axis=0)
    source, target = source - source_mean, _TEMPLATE - target_mean
    # In the plane a similarity is one complex factor, and its least-squares solution is a quotient.
    spread = (source**2).sum()
    cos = (source * target).sum() / spread
    sin = (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum() / spread
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.concatenate((turn, (target_mean - turn @ source_mean)[:, None]), axis=1)


def crop_face(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The aligned 112x112 crop of an image (h, w, 3) uint8; black outside the image, as InsightFace has it."""
    crop = cv2.warpAffine(image, fit_similarity(landmarks), (CROP, CROP), borderValue=0.0)
    return np.asarray(crop, np.uint8)
