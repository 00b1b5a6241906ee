"""Stored bytes and unit vectors."""

from __future__ import annotations

import numpy as np
import pytest

from shared.faces.embeddings import (
    InvalidEmbedding,
    cosine,
    decode_embedding,
    decode_embeddings,
    encode_embedding,
    normalise,
)


def random_units(count: int, dimension: int = 512, seed: int = 0) -> np.ndarray:
    return normalise(np.random.default_rng(seed).standard_normal((count, dimension)))


def test_bytes_are_little_endian_float16() -> None:
    data = encode_embedding([3.0, 4.0])
    assert data == np.array([0.6, 0.8], dtype="<f2").tobytes()
    assert len(encode_embedding(np.ones(512))) == 1024


def test_round_trip_keeps_direction_and_length() -> None:
    vectors = random_units(200)
    decoded = decode_embeddings([encode_embedding(v) for v in vectors], 512)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1.0, atol=1e-6)
    assert min(cosine(a, b) for a, b in zip(vectors, decoded, strict=True)) > 0.99999
    cosines_before, cosines_after = vectors @ vectors.T, decoded @ decoded.T
    assert np.abs(cosines_before - cosines_after).max() < 1e-3


def test_a_stream_is_decoded_like_a_list_and_like_each_alone() -> None:
    rows = [encode_embedding(v) for v in random_units(50, 64)]
    stacked = decode_embeddings(rows, 64)
    np.testing.assert_array_equal(stacked, decode_embeddings(iter(rows), 64, count=50))
    np.testing.assert_array_equal(stacked, np.stack([decode_embedding(row) for row in rows]))
    assert decode_embeddings([], 64).shape == (0, 64)


@pytest.mark.parametrize("count", [49, 51])
def test_a_stream_of_another_length_is_refused(count: int) -> None:
    rows = [encode_embedding(v) for v in random_units(50, 8)]
    with pytest.raises(InvalidEmbedding, match="expected"):
        decode_embeddings(iter(rows), 8, count=count)


@pytest.mark.parametrize(
    "bad", [np.zeros(4), np.array([1.0, np.nan]), np.array([np.inf, 1.0]), np.zeros((0,)), np.ones((2, 2, 2))]
)
def test_numbers_without_a_direction_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvalidEmbedding):
        normalise(bad)


def test_one_bad_row_refuses_the_stack() -> None:
    with pytest.raises(InvalidEmbedding):
        normalise(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_wrong_dimension_or_odd_bytes_are_refused() -> None:
    with pytest.raises(InvalidEmbedding, match="expected 4"):
        decode_embedding(encode_embedding([1.0, 2.0]), 4)
    with pytest.raises(InvalidEmbedding):
        decode_embedding(b"abc")
    with pytest.raises(InvalidEmbedding):
        decode_embeddings([encode_embedding([1.0, 2.0]), b"ab"], 2)
    with pytest.raises(InvalidEmbedding, match="count"):
        decode_embeddings(iter([]), 2)


def test_normalise_leaves_its_argument_alone() -> None:
    given = np.array([3.0, 4.0], dtype=np.float32)
    normalise(given)
    assert given.tolist() == [3.0, 4.0]


def test_cosine_is_clipped() -> None:
    nearly = np.array([1.0000002, 0.0], dtype=np.float32)
    assert cosine(nearly, nearly) == 1.0
