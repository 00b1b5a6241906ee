"""Embeddings as stored bytes and as arrays.

Stored form: float16, little-endian, in the order of the model's output (1,024 bytes at 512 dimensions).
Working form: float32 of unit length. Rounding to float16 moves the length by up to about 5e-4, so decoding
normalises again; cosines of decoded vectors differ from the exact ones by less than 1e-3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

STORED = np.dtype("<f2")
Vectors = npt.NDArray[np.float32]

_DECODE_ROWS = 8192
_MIN_NORM = 1e-6


class InvalidEmbedding(ValueError):
    """The numbers cannot be an embedding: wrong length, not finite, or without a direction."""


def normalise(vectors: npt.ArrayLike) -> Vectors:
    """Scale to unit length along the last axis; (D,) or (N, D), any float type in, float32 out (a new array).

    Raises :class:`InvalidEmbedding` for NaN, infinity, or a row shorter than 1e-6, which has no direction.
    """
    array = np.array(vectors, dtype=np.float32)
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise InvalidEmbedding(f"an embedding is (D,) or (N, D), not {array.shape}")
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    if not np.isfinite(norms).all():
        raise InvalidEmbedding("an embedding holds NaN, infinity or numbers too large for float32")
    if (norms < _MIN_NORM).any():
        raise InvalidEmbedding("an embedding of length zero has no direction")
    array /= norms
    return array


def normalise_each(vectors: Vectors) -> tuple[Vectors, npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scale rows (N, D) of strangers' making to unit length; answers them with their lengths (N,) before.

    The third answer (N,) is False for a row that cannot be an embedding: one with NaN, infinity or numbers too large for
    float32, or without a direction. Such a row becomes zeros.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1)
    usable = np.isfinite(lengths) & (lengths >= _MIN_NORM)
    lengths = lengths.astype(np.float32)
    units = np.zeros(vectors.shape, np.float32)
    np.divide(vectors, lengths[:, None], out=units, where=usable[:, None])
    return units, lengths, usable


def encode_embeddings(units: Vectors) -> list[bytes]:
    """The stored bytes of each unit row (N, D)."""
    data, size = units.astype(STORED).tobytes(), units.shape[1] * STORED.itemsize
    return [data[start : start + size] for start in range(0, len(data), size)]


def cosine(left: Vectors, right: Vectors) -> float:
    """Cosine of two unit vectors (D,), clipped to -1..1 against rounding."""
    return float(np.clip(np.dot(left, right), -1.0, 1.0))


def encode_embedding(vector: npt.ArrayLike) -> bytes:
    """Normalise (D,) and give its stored bytes (2 * D). Raises :class:`InvalidEmbedding`."""
    unit = normalise(vector)
    if unit.ndim != 1:
        raise InvalidEmbedding(f"one embedding is (D,), not {unit.shape}")
    return unit.astype(STORED).tobytes()


def decode_embedding(data: bytes, dimension: int | None = None) -> Vectors:
    """Stored bytes to a unit vector (D,). Raises :class:`InvalidEmbedding`, also if D is not ``dimension``."""
    if len(data) == 0 or len(data) % STORED.itemsize:
        raise InvalidEmbedding(f"{len(data)} bytes are not float16 numbers")
    found = len(data) // STORED.itemsize
    if dimension is not None and found != dimension:
        raise InvalidEmbedding(f"expected {dimension} dimensions, found {found}")
    return normalise(np.frombuffer(data, dtype=STORED))


def decode_embeddings(rows: Iterable[bytes], dimension: int, count: int | None = None) -> Vectors:
    """Stack stored rows into unit vectors (N, D), float32.

    ``count`` lets a stream be decoded without holding its bytes: the result is allocated once and filled by
    slices. It is required for an iterator and defaults to the length of a sequence. Raises
    :class:`InvalidEmbedding` for a row of another dimension, or if the stream holds more or fewer rows than
    ``count``.
    """
    if count is None:
        if not isinstance(rows, Sequence):
            raise InvalidEmbedding("a stream of embeddings needs its count")
        count = len(rows)
    size = dimension * STORED.itemsize
    result = np.empty((count, dimension), dtype=np.float32)
    done = 0
    stream = iter(rows)
    while chunk := _take_rows(stream, size):
        if done + len(chunk) > count:
            raise InvalidEmbedding(f"expected {count} embeddings, found more")
        stacked = np.frombuffer(b"".join(chunk), dtype=STORED).reshape(len(chunk), dimension)
        result[done : done + len(chunk)] = normalise(stacked)
        done += len(chunk)
    if done != count:
        raise InvalidEmbedding(f"expected {count} embeddings, found {done}")
    return result


def _take_rows(stream: Iterator[bytes], size: int) -> list[bytes]:
    chunk = list(islice(stream, _DECODE_ROWS))
    for row in chunk:
        if len(row) != size:
            raise InvalidEmbedding(f"expected {size} bytes per embedding, found {len(row)}")
    return chunk
