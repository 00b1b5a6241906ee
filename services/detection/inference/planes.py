"""8-bit pictures written into the float planes a model takes."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray


class _OfThread(threading.local):
    """The calling thread's inputs, by how many pictures they hold."""

    def __init__(self) -> None:
        self.blobs: dict[int, NDArray[np.float32]] = {}


class Blobs:
    """Inputs of a model, one per thread and batch size, used again and again.

    Fresh memory of this size costs more, page by page, than what is written into it.
    """

    def __init__(self, side: int, mean: float, deviation: float) -> None:
        """For square pictures of ``side`` pixels; the model takes (pixel - ``mean``) / ``deviation``, RGB."""
        self._side = side
        self._gain = 1.0 / deviation
        self._black = -mean / deviation
        self._own = _OfThread()

    def take(self, count: int) -> NDArray[np.float32]:
        """The calling thread's (count, 3, side, side) float32, with whatever was written into it last."""
        blobs = self._own.blobs
        if count not in blobs:
            blobs[count] = np.full((count, 3, self._side, self._side), self._black, np.float32)
        return blobs[count]

    def write(self, picture: NDArray[np.uint8], planes: NDArray[np.float32]) -> None:
        """Put a BGR ``picture`` (H, W, 3) into the top left of ``planes`` (3, side, side), and black beside it."""
        height, width = picture.shape[:2]
        planes[:, height:] = self._black
        planes[:, :height, width:] = self._black
        for channel, plane in enumerate(reversed(cv2.split(picture))):
            # plane * gain + black, from 8 bits to float in one pass; a product would take two.
            cv2.addWeighted(plane, self._gain, plane, 0.0, self._black, planes[channel, :height, :width], cv2.CV_32F)
