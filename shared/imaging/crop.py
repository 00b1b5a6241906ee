"""Cutting a face out of a photo, to be looked at by a person (alignment for the recogniser is another matter)."""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.faces.boxes import Box


class CropFormat(StrEnum):
    """Encodings of a crop, with their media types' subtype as value."""

    JPEG = "jpeg"
    WEBP = "webp"


def crop_face(
    pixels: NDArray[np.uint8], box: Box, *, margin: float, size: int | None = None, square: bool = False
) -> NDArray[np.uint8]:
    """The face of ``box`` with its surroundings, from upright (H, W, 3) BGR pixels.

    ``margin`` is added on each side as a share of the box's longer side (0.25 = a quarter). With ``square``
    the cut is as wide as high and slides along the photo's edge rather than leave it; it is only smaller than
    asked for if the photo is. The longer side is scaled down to ``size`` pixels, never up: there is no more
    to see. Raises ``ValueError`` if box and photo do not overlap.
    """
    height, width = pixels.shape[:2]
    if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
        raise ValueError("the box lies outside the photo")
    extra = margin * max(box.width, box.height)
    if square:
        side = min(round(max(box.width, box.height) + 2 * extra), width, height)
        left = _slide(box.x + box.width / 2, side, width)
        top = _slide(box.y + box.height / 2, side, height)
        right, bottom = left + max(side, 1), top + max(side, 1)
    else:
        left, top = max(0, round(box.x - extra)), max(0, round(box.y - extra))
        right = min(width, max(left + 1, round(box.x + box.width + extra)))
        bottom = min(height, max(top + 1, round(box.y + box.height + extra)))
        left, top = min(left, right - 1), min(top, bottom - 1)
    cut = pixels[top:bottom, left:right]
    longest = max(cut.shape[:2])
    if size is not None and longest > size:
        scale = size / longest
        target = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
        cut = np.asarray(cv2.resize(cut, target, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(cut)


def encode_crop(pixels: NDArray[np.uint8], crop_format: CropFormat, *, quality: int = 88) -> bytes:
    """Encode (H, W, 3) BGR pixels; ``quality`` is 1..100."""
    extension, flag = {
        CropFormat.JPEG: (".jpg", cv2.IMWRITE_JPEG_QUALITY),
        CropFormat.WEBP: (".webp", cv2.IMWRITE_WEBP_QUALITY),
    }[crop_format]
    done, encoded = cv2.imencode(extension, pixels, [flag, quality])
    if not done:
        raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels cannot be encoded as {crop_format}")
    return bytes(encoded)


def _slide(centre: float, side: int, limit: int) -> int:
    return min(max(0, round(centre - side / 2)), limit - side)
