"""The generator the grouping is judged with."""

from __future__ import annotations

import numpy as np

from bench.embeddings import BLOB, JUNK, GeneratedFaces, generate_faces


def test_the_same_seed_gives_the_same_faces(faces_1k: GeneratedFaces) -> None:
    again, other = generate_faces(1000, seed=1), generate_faces(1000, seed=2)
    np.testing.assert_array_equal(again.vectors, faces_1k.vectors)
    np.testing.assert_array_equal(again.truth, faces_1k.truth)
    assert not np.array_equal(other.vectors, faces_1k.vectors)


def test_faces_look_like_a_library(faces_5k: GeneratedFaces) -> None:
    """Strangers near cosine 0, one person far above; many people with few photos, few with many."""
    vectors, truth = faces_5k.vectors, faces_5k.truth
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert ((truth == JUNK).sum(), (truth == BLOB).sum()) == (150, 75)
    sizes = np.bincount(truth[truth >= 0])
    assert sizes.min() >= 1
    assert sizes.max() <= 0.06 * 5000
    assert np.median(sizes) <= 3 < 50 < sizes.max()
    people = truth >= 0
    cosines = vectors[people] @ vectors[people].T
    same = truth[people][:, None] == truth[people][None, :]
    np.fill_diagonal(same, False)
    strangers = cosines[~same & ~np.eye(len(cosines), dtype=bool)]
    assert abs(float(np.median(strangers))) < 0.06
    assert float(np.median(cosines[same])) > 0.4
    assert faces_5k.quality[~people].max() < 0.4
