"""Five key points to an aligned face crop, as every ArcFace model expects it.

The similarity transform is the least-squares one (Umeyama, 1991); in two dimensions without reflection it has a
closed form, which gives InsightFace's matrix (scikit-image, by singular values) to rounding at a fraction of the
time.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """:func:`similarity_transforms` of one face: (5, 2) points, (2, 3) matrix."""
    matrix: NDArray[np.float64] = similarity_transforms(np.asarray(points)[None], template)[0]
    return matrix


def similarity_transforms(points: NDArray[np.floating], template: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2, 3) matrices that take ``points`` (N, 5, 2) onto ``template`` (5, 2) with least squared error.

    Points that all coincide have no orientation; they give a finite matrix whose crop is one flat colour.
    """
    source = np.asarray(points, np.float64)
    source_mean, target_mean = source.mean(axis=1), template.mean(axis=0)
    a, b = source - source_mean[:, None], template - target_mean
    spread = np.maximum((a * a).sum(axis=(1, 2)), _LEAST_SPREAD)
    cosine = (a * b).sum(axis=(1, 2)) / spread
    sine = (a[..., 0] * b[:, 1] - a[..., 1] * b[:, 0]).sum(axis=1) / spread
    x, y = source_mean.T
    matrices = np.empty((len(source), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = cosine
    matrices[:, 0, 1], matrices[:, 1, 0] = -sine, sine
    matrices[:, 0, 2] = target_mean[0] - cosine * x + sine * y
    matrices[:, 1, 2] = target_mean[1] - sine * x - cosine * y
    return matrices


def align_faces(
    photos: Sequence[NDArray[np.uint8]], landmarks: NDArray[np.floating], template: NDArray[np.float64], side: int
) -> list[NDArray[np.uint8]]:
    """The faces of ``landmarks`` (N, 5, 2), each in its upright photo, as (side, side, 3) uint8 BGR; black beyond the
    photo's edge.
    """
    matrices = similarity_transforms(landmarks, template)
    return [
        np.asarray(cv2.warpAffine(pixels, matrix, (side, side), borderValue=0.0), np.uint8)
        for pixels, matrix in zip(photos, matrices, strict=True)
    ]


def align_face(
    pixels: NDArray[np.uint8], landmarks: NDArray[np.floating], template: NDArray[np.float64], side: int
) -> NDArray[np.uint8]:
    """:func:`align_faces` of one face, (5, 2)."""
    return align_faces([pixels], np.asarray(landmarks)[None], template, side)[0]
