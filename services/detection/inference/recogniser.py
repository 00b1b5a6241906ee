"""Aligned crops to unit embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.detection.inference.errors import InferenceError
from services.detection.inference.planes import Blobs
from services.detection.inference.session import Session

# Crops that are made ready together, at least the largest batch: between two runs of a model the caches are cold.
_WRITTEN_AT_ONCE = 32


class Recogniser:
    """Runs an ArcFace-like session. May be used by several threads at once."""

    def __init__(self, session: Session, *, side: int, mean: float, deviation: float, buckets: Sequence[int]) -> None:
        """``buckets`` are the batch sizes to run, rising: a batch is padded to the next one, so that a GPU sees few
        shapes.
        """
        self._session = session
        self._input = session.get_inputs()[0].name
        self._side = side
        self._blobs = Blobs(side, mean, deviation)
        self._buckets = tuple(buckets)

    @property
    def side(self) -> int:
        """Of a crop, in pixels."""
        return self._side

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
        parts: list[NDArray[np.float32]] = []
        for start in range(0, len(crops), _WRITTEN_AT_ONCE):
            written = crops[start : start + _WRITTEN_AT_ONCE]
            blob = self._blobs.take(_WRITTEN_AT_ONCE)
            for row, crop in enumerate(written):
                self._blobs.write(crop, blob[row])
            parts += self._run_written(blob, len(written))
        return np.concatenate(parts)

    def _run_written(self, blob: NDArray[np.float32], count: int) -> list[NDArray[np.float32]]:
        """Run the first ``count`` crops of ``blob``, in the largest batches there are."""
        parts: list[NDArray[np.float32]] = []
        largest = self._buckets[-1]
        for start in range(0, count, largest):
            size = min(largest, count - start)
            # What pads the batch is an earlier one's, and nobody reads what comes of it.
            bucket = next(bucket for bucket in self._buckets if bucket >= size)
            rows = self._session.run(None, {self._input: blob[start : start + bucket]})[0]
            parts.append(rows.reshape(bucket, -1)[:size].astype(np.float32, copy=False))
        return parts
