"""Boxes of faces, and which of two sets of boxes are the same face. Pixels of the upright image throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Box:
    """Top left corner and size in pixels of the upright image; it may reach beyond the image's edge."""

    x: float
    y: float
    width: float
    height: float


def iou_matrix(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of every pair of boxes.

    ``first`` is (N, 4) and ``second`` (M, 4), rows ``x, y, width, height``; the result is (N, M) float64 in
    0..1. A box without area has no overlap with anything, itself included.
    """
    a = np.asarray(first, np.float64).reshape(-1, 1, 4)
    b = np.asarray(second, np.float64).reshape(1, -1, 4)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared_area = np.prod(np.maximum(high - low, 0.0), axis=-1)
    union = np.prod(a[..., 2:], axis=-1) + np.prod(b[..., 2:], axis=-1) - shared_area
    overlap: NDArray[np.float64] = np.zeros_like(shared_area)
    np.divide(shared_area, union, out=overlap, where=shared_area > 0)
    return overlap


def match_boxes(
    first: NDArray[np.floating], second: NDArray[np.floating], threshold: float
) -> list[tuple[int, int, float]]:
    """Pair boxes one to one, highest IoU first, while it is at least ``threshold`` (> 0).

    Returns ``(row of first, row of second, iou)`` by falling IoU. Ties go to the lower rows, so the same
    input always gives the same pairs. Greedy, not optimal in sum: the best pair is never broken up for the
    sake of two worse ones.
    """
    if threshold <= 0:
        raise ValueError("the threshold must be above 0, or boxes that do not touch would match")
    overlap = iou_matrix(first, second)
    rows, columns = np.nonzero(overlap >= threshold)
    values = overlap[rows, columns]
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    pairs: list[tuple[int, int, float]] = []
    for at in np.lexsort((columns, rows, -values)):
        row, column = int(rows[at]), int(columns[at])
        if row in used_rows or column in used_columns:
            continue
        used_rows.add(row)
        used_columns.add(column)
        pairs.append((row, column, float(values[at])))
    return pairs
