"""A learnt linear map from a model's embeddings into a space of fewer or as many dimensions, where persons lie further apart.

Cosines of projected faces are of another scale than the model's own. What a threshold means is how far above strangers it
stands: the cosines of faces of different people, nearly all pairs of a library, have a middle and a spread in each space, and
a threshold is carried over by keeping its distance from the middle, in spreads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shared.faces.embeddings import InvalidEmbedding, Vectors, normalise
from shared.faces.verification import Scores

STORED: Final = np.dtype("<f4")
_NORMAL_MAD: Final = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """``matrix`` (D, d) float32: a face x becomes ``unit(x @ matrix)``."""

    matrix: Vectors

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or not 0 < self.matrix.shape[1] <= self.matrix.shape[0]:
            raise ValueError(f"a projection is (D, d) with 0 < d <= D, not {self.matrix.shape}")

    @property
    def input_dimension(self) -> int:
        """D, of the embeddings it takes."""
        return int(self.matrix.shape[0])

    @property
    def dimension(self) -> int:
        """d, of the vectors it gives."""
        return int(self.matrix.shape[1])

    def apply(self, vectors: Vectors) -> Vectors:
        """Unit vectors (N, D) to unit vectors (N, d), float32.

        Raises :class:`InvalidEmbedding` for vectors of another dimension, and for one that is mapped to nothing.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.input_dimension:
            raise InvalidEmbedding(f"expected (N, {self.input_dimension}), found {vectors.shape}")
        return normalise(vectors @ self.matrix)

    def to_bytes(self) -> bytes:
        """The matrix as it is stored: float32, little-endian, row by row."""
        return self.matrix.astype(STORED).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, input_dimension: int, dimension: int) -> Projection:
        """What :meth:`to_bytes` made. Raises :class:`InvalidEmbedding` if the bytes are not that many numbers."""
        if len(data) != input_dimension * dimension * STORED.itemsize:
            raise InvalidEmbedding(f"{len(data)} bytes are not {input_dimension} x {dimension} float32 numbers")
        return cls(np.frombuffer(data, STORED).reshape(input_dimension, dimension).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Strangers:
    """Cosines of faces of different people in one space: their median, and their spread (1.4826 MAD), more than 0."""

    middle: float
    spread: float

    def __post_init__(self) -> None:
        if not self.spread > 0:
            raise ValueError("strangers' cosines without a spread say nothing about a space")


def measure_strangers(impostor: Scores) -> Strangers:
    """From the cosines of pairs of different people (I,), I > 0."""
    middle = float(np.median(impostor))
    spread = _NORMAL_MAD * float(np.median(np.abs(impostor - np.float32(middle))))
    return Strangers(middle, max(spread, float(np.finfo(np.float32).eps)))


@dataclass(frozen=True, slots=True, eq=False)
class LearntSpace:
    """The space a projection leads into, and what strangers look like in the model's own and in this one."""

    projection: Projection
    before: Strangers
    after: Strangers

    def carry(self, cosine: float) -> float:
        """The cosine that stands as far above strangers here as ``cosine`` does in the model's space, -1..1."""
        distance = (cosine - self.before.middle) / self.before.spread
        return float(np.clip(self.after.middle + distance * self.after.spread, -1.0, 1.0))

    def carry_difference(self, difference: float) -> float:
        """A difference of cosines as it is here."""
        return difference * self.after.spread / self.before.spread
