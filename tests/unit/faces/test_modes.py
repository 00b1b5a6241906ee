"""The modes of a person."""

from __future__ import annotations

import numpy as np

from shared.faces.embeddings import normalise
from shared.faces.modes import ModeRules, find_modes


def faces_around(centres: np.ndarray, counts: list[int], spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = normalise(random.standard_normal((len(labels), centres.shape[1])))
    order = random.permutation(len(labels))
    return normalise(centres[labels] + spread * noise)[order], labels[order]


def test_child_and_adult_are_two_modes_the_larger_first() -> None:
    random = np.random.default_rng(3)
    centres = normalise(random.standard_normal((2, 64)))
    vectors, truth = faces_around(centres, [20, 40], 0.6, 4)
    modes = find_modes(vectors)
    assert modes is not None
    np.testing.assert_array_equal(modes.labels, 1 - truth)
    assert np.diag(modes.vectors @ centres[::-1].T).min() > 0.95


def test_three_modes_are_found_as_three() -> None:
    centres = normalise(np.random.default_rng(5).standard_normal((3, 64)))
    vectors, truth = faces_around(centres, [30, 20, 10], 0.5, 6)
    modes = find_modes(vectors)
    assert modes is not None
    assert len(modes.vectors) == 3
    np.testing.assert_array_equal(modes.labels, truth)


def test_one_clump_and_few_faces_have_no_modes() -> None:
    centres = normalise(np.random.default_rng(7).standard_normal((2, 64)))
    one, _ = faces_around(centres[:1], [80], 0.6, 8)
    assert find_modes(one) is None
    few, _ = faces_around(centres, [5, 6], 0.3, 9)
    assert find_modes(few) is None
    assert find_modes(few, ModeRules(min_faces=10)) is not None


def test_an_outlier_is_no_mode() -> None:
    centres = normalise(np.random.default_rng(10).standard_normal((2, 64)))
    vectors, _ = faces_around(centres, [60, 1], 0.6, 11)
    assert find_modes(vectors) is None


def test_copies_of_one_face_have_no_modes() -> None:
    face = normalise(np.random.default_rng(0).standard_normal(16))
    assert find_modes(np.repeat(face[None], 30, axis=0)) is None
