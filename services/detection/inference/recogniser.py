"""Aligned crops to unit embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from services.detection.inference.errors import InferenceError
from services.detection.inference.session import Session


class Recogniser:
    """Runs an ArcFace-like session. May be used by several threads at once."""

    def __init__(self, session: Session, *, side: int, mean: float, deviation: float, buckets: Sequence[int]) -> None:
        """``buckets`` are the batch sizes to run, rising: a batch is padded to the next one, so that a GPU sees few
        shapes.
        """
        self._session = session
        self._input = session.get_inputs()[0].name
        self._side = side
        self._mean = mean
        self._deviation = deviation
        self._buckets = tuple(buckets)

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embed (side, side, 3) uint8 BGR crops.

        Returns (N, D) float32 rows of length 1, and (N,) float32: their length before that. Raises
        :class:`InferenceError` if the model gives a row that has no direction (all zero, or not finite).
        """
        raw = self.run(crops)
        norms = np.linalg.norm(raw, axis=1)
        if not np.all(np.isfinite(norms)) or np.any(norms == 0):
            raise InferenceError("the recogniser gave an embedding without direction")
        return raw / norms[:, None], norms

    def run(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """As :meth:`embed`, but the model's output as it is: (N, D) float32, not of unit length. N must be at least
        1.
        """
        largest = self._buckets[-1]
        chunks = [self._run_chunk(crops[start : start + largest]) for start in range(0, len(crops), largest)]
        return np.concatenate(chunks)

    def _run_chunk(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        bucket = next(size for size in self._buckets if size >= len(crops))
        padded = [*crops, *[crops[-1]] * (bucket - len(crops))]
        size = (self._side, self._side)
        blob = cv2.dnn.blobFromImages(padded, 1.0 / self._deviation, size, (self._mean,) * 3, swapRB=True)
        rows = self._session.run(None, {self._input: blob})[0]
        return rows.reshape(bucket, -1)[: len(crops)].astype(np.float32, copy=False)
