"""A small drawing surface: anti-aliased shapes in head units, with a mask of what has been covered."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.drawing.geometry import Points
from demo.drawing.identity import Colour

_SHIFT = 4
_FIXED = 1 << _SHIFT


class Canvas:
    """BGR picture of shape (h, w, 3) and cover mask (h, w), both uint8; one head unit is `unit` pixels."""

    def __init__(self, width: float, height: float, origin: tuple[float, float], unit: float) -> None:
        size = (round(height * unit), round(width * unit))
        self.image: NDArray[np.uint8] = np.zeros((*size, 3), np.uint8)
        self.mask: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self.unit = unit
        self._origin = np.array(origin, np.float32)

    def to_pixels(self, points: Points) -> Points:
        """Head units to this canvas's pixels."""
        pixels: Points = (points + self._origin) * np.float32(self.unit)
        return pixels

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        return np.rint(self.to_pixels(points) * _FIXED).astype(np.int32)

    def fill(self, points: Points, colour: Colour) -> None:
        """A filled polygon."""
        fixed = [self._fixed(points)]
        cv2.fillPoly(self.image, fixed, colour, cv2.LINE_AA, _SHIFT)
        # The picture starts black, so a soft edge is the colour times its cover: already premultiplied.
        cv2.fillPoly(self.mask, fixed, 255, cv2.LINE_AA, _SHIFT)

    def line(self, points: Points, colour: Colour, thickness: float) -> None:
        """An open stroke of a thickness in head units."""
        width = max(1, round(thickness * self.unit))
        fixed = [self._fixed(points)]
        cv2.polylines(self.image, fixed, False, colour, width, cv2.LINE_AA, _SHIFT)
        cv2.polylines(self.mask, fixed, False, 255, width, cv2.LINE_AA, _SHIFT)

    def dot(self, point: Points, radius: float, colour: Colour) -> None:
        """A filled circle at a (1, 2) point."""
        x, y = self._fixed(point)[0]
        size = max(1, round(radius * self.unit * _FIXED))
        cv2.circle(self.image, (int(x), int(y)), size, colour, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(self.mask, (int(x), int(y)), size, 255, -1, cv2.LINE_AA, _SHIFT)
