"""Learnt projections: what they give, and as bytes."""

from __future__ import annotations

import numpy as np
import pytest

from shared.faces.embeddings import InvalidEmbedding, normalise
from shared.faces.projection import LearntSpace, Projection, Strangers, measure_strangers


def make_projection(input_dimension: int = 6, dimension: int = 4) -> Projection:
    return Projection(np.random.default_rng(0).standard_normal((input_dimension, dimension)).astype(np.float32))


def test_faces_come_out_as_unit_vectors_of_the_other_space() -> None:
    projection = make_projection()
    faces = normalise(np.random.default_rng(1).standard_normal((5, 6)))
    found = projection.apply(faces)
    assert found.shape == (5, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found[2], normalise(faces[2] @ projection.matrix), atol=1e-6)
    assert projection.apply(faces[:0]).shape == (0, 4)


def test_stored_bytes_are_little_endian_row_by_row() -> None:
    projection = make_projection()
    data = projection.to_bytes()
    assert np.frombuffer(data[4 * 4 : 4 * 4 + 4], "<f4")[0] == projection.matrix[1, 0]
    np.testing.assert_array_equal(Projection.from_bytes(data, 6, 4).matrix, projection.matrix)
    with pytest.raises(InvalidEmbedding):
        Projection.from_bytes(data, 6, 5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidEmbedding):
        make_projection().apply(np.ones((2, 5), np.float32))
    flat = Projection(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float32))
    with pytest.raises(InvalidEmbedding):
        flat.apply(np.array([[0.0, 0.0, 1.0]], np.float32))
    with pytest.raises(ValueError, match="0 < d <= D"):
        Projection(np.ones((4, 6), np.float32))


def test_a_threshold_keeps_its_distance_from_strangers() -> None:
    space = LearntSpace(make_projection(), before=Strangers(0.02, 0.05), after=Strangers(0.0, 0.04))
    assert space.carry(0.02) == pytest.approx(0.0)
    assert space.carry(0.42) == pytest.approx(0.32)
    assert space.carry_difference(0.05) == pytest.approx(0.04)
    assert LearntSpace(space.projection, space.before, Strangers(0.0, 0.5)).carry(0.4) == 1.0


def test_strangers_are_their_median_and_their_spread() -> None:
    cosines = np.random.default_rng(2).normal(0.1, 0.05, 20_001).astype(np.float32)
    found = measure_strangers(np.sort(cosines))
    assert found.middle == pytest.approx(0.1, abs=2e-3)
    assert found.spread == pytest.approx(0.05, abs=2e-3)
    assert measure_strangers(np.full(3, 0.5, np.float32)).spread > 0
    with pytest.raises(ValueError, match="without a spread"):
        Strangers(0.1, 0.0)
