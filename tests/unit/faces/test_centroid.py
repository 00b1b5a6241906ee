"""One centroid for everybody."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.faces.centroid import compute_centroid, compute_centroids, count_trimmed, hash_members
from shared.faces.embeddings import InvalidEmbedding, normalise


def clump(count: int, seed: int, dimension: int = 32) -> np.ndarray:
    random = np.random.default_rng(seed)
    return normalise(random.standard_normal(dimension) + 0.7 * random.standard_normal((count, dimension)))


@pytest.mark.parametrize(
    ("size", "trimmed"), [(1, 0), (49, 0), (50, 2), (60, 3), (299, 14), (300, 15), (301, 30), (1000, 100)]
)
def test_trimming_boundaries(size: int, trimmed: int) -> None:
    assert count_trimmed(size) == trimmed


@pytest.mark.parametrize("size", [1, 3, 49, 50, 51, 300, 301])
def test_centroid_is_the_mean_without_the_least_alike(size: int) -> None:
    vectors = clump(size, seed=size).astype(np.float64)
    mean = vectors.mean(axis=0)
    kept = np.argsort(vectors @ mean)[count_trimmed(size) :]
    expected = vectors[kept].mean(axis=0)
    np.testing.assert_allclose(
        compute_centroid(vectors.astype(np.float32)), expected / np.linalg.norm(expected), atol=1e-6
    )


def test_two_strangers_among_fifty_change_nothing_but_among_49_do() -> None:
    faces = clump(50, seed=1)
    strangers = -faces[:2]
    clean = compute_centroid(faces[2:])
    assert float(compute_centroid(np.concatenate([faces[2:], strangers])) @ clean) > 1 - 1e-6
    assert float(compute_centroid(np.concatenate([faces[3:], strangers])) @ clean) < 1 - 1e-5


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_many_groups_at_once_equal_each_alone(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(-1, len(sizes)), [5, *sizes])
    vectors = np.concatenate([clump(n, seed + i, 16) for i, n in enumerate([5, *sizes])])
    order = np.random.default_rng(seed).permutation(len(labels))
    found = compute_centroids(vectors[order], labels[order], len(sizes))
    assert found.sizes.tolist() == sizes
    for group in range(len(sizes)):
        alone = compute_centroid(vectors[order][labels[order] == group])
        np.testing.assert_allclose(found.vectors[group], alone, atol=1e-6)


def test_nothing_and_opposites_have_no_centroid() -> None:
    with pytest.raises(InvalidEmbedding):
        compute_centroid(np.empty((0, 4), dtype=np.float32))
    with pytest.raises(InvalidEmbedding):
        compute_centroid(np.array([[1, 0], [-1, 0]], dtype=np.float32))
    with pytest.raises(InvalidEmbedding):
        compute_centroids(clump(3, 0), np.zeros(3, dtype=np.int64), 2)


def test_hash_of_members_ignores_order_and_sees_versions() -> None:
    members = [("b", 1), ("a", 2)]
    assert hash_members(members) == hashlib.sha256(b"a:2\nb:1\n").hexdigest()
    assert hash_members(reversed(members)) == hash_members(members)
    assert hash_members([*members, ("a", 2)]) == hash_members(members)
    assert hash_members([("b", 1), ("a", 3)]) != hash_members(members)
    assert hash_members([("b", 1)]) != hash_members(members)
