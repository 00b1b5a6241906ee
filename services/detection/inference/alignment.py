"""Five key points to an aligned face crop, as every ArcFace model expects it.

The similarity transform is the least-squares one (Umeyama, 1991); in two dimensions without reflection it has a
closed form, which gives InsightFace's matrix (scikit-image, by singular values) to rounding at a fraction of the
time.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Positions on the 112 x 112 crop: viewer's left eye, right eye, nose, left and right mouth corner
# (InsightFace, face_align.py).
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
_LEAST_SPREAD = 1e-12


def template_for(side: int) -> NDArray[np.float64]:
    """The template for crops of ``side`` pixels: (5, 2) float64. ``side`` is a multiple of 112, or of 128
    (then with 8/128 of border).
    """
    if side % 112 == 0:
        ratio, border = side / 112, 0.0
    elif side % 128 == 0:
        ratio, border = side / 128, 8.0 * side / 128
    else:
        raise ValueError(f"the ArcFace template is for crops of 112 or 128 pixels and their multiples, not {side}")
    template = (ARCFACE_TEMPLATE * np.float32(ratio)).astype(np.float64)
    template[:, 0] += border
    return template


def similarity_transform(points: NDArray[np.floating], template: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) matrix that takes ``points`` (5, 2) onto ``template`` (5, 2) with least squared error.

    Points that all coincide have no orientation; they give a finite matrix whose crop is one flat colour.
    """
    source = np.asarray(points, np.float64)
    source_mean, target_mean = source.mean(axis=0), template.mean(axis=0)
    a, b = source - source_mean, template - target_mean
    spread = max(float((a * a).sum()), _LEAST_SPREAD)
    cosine = float((a * b).sum()) / spread
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / spread
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([rotation, target_mean - rotation @ source_mean])


def align_face(
    pixels: NDArray[np.uint8], landmarks: NDArray[np.floating], template: NDArray[np.float64], side: int
) -> NDArray[np.uint8]:
    """The face of ``landmarks`` (5, 2) in upright ``pixels``, as (side, side, 3) uint8 BGR; black beyond the photo's
    edge.
    """
    matrix = similarity_transform(landmarks, template)
    return np.asarray(cv2.warpAffine(pixels, matrix, (side, side), borderValue=0.0), np.uint8)
