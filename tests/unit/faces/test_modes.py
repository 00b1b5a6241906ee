"""The modes of a person."""

from __future__ import annotations

import numpy as np
import pytest

from shared.faces import modes as modes_module
from shared.faces.centroid import MEAN_ALGORITHM, compute_centroids
from shared.faces.embeddings import normalise
from shared.faces.modes import ALGORITHM, LOOKED_AT, ModeRules, find_modes


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


def test_of_very_many_faces_some_are_searched_and_all_are_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = normalise(np.random.default_rng(12).standard_normal((3, 32)))
    vectors, truth = faces_around(centres, [1700, 1600, 1500], 0.5, 13)
    searched: list[int] = []
    search = modes_module._search_modes

    def note(rows: np.ndarray, rules: ModeRules) -> modes_module.Modes | None:
        searched.append(len(rows))
        return search(rows, rules)

    monkeypatch.setattr(modes_module, "_search_modes", note)
    modes = find_modes(vectors)
    assert modes is not None
    assert searched == [LOOKED_AT]
    np.testing.assert_array_equal(modes.labels, truth)
    assert np.bincount(modes.labels).tolist() == [1700, 1600, 1500]
    np.testing.assert_array_equal(modes.vectors, compute_centroids(vectors, modes.labels, 3).vectors)


@pytest.mark.parametrize("count", [60, 2500])
def test_the_same_faces_always_give_the_same_modes(count: int) -> None:
    centres = normalise(np.random.default_rng(14).standard_normal((2, 32)))
    vectors, _ = faces_around(centres, [count, count // 2], 0.7, 15)
    first, second = find_modes(vectors), find_modes(vectors.copy())
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_there_are_at_most_eight() -> None:
    centres = normalise(np.random.default_rng(16).standard_normal((12, 64)))
    vectors, _ = faces_around(centres, [20] * 12, 0.3, 17)
    modes = find_modes(vectors)
    assert modes is not None
    assert len(modes.vectors) <= 8


def test_the_name_of_the_formula_has_the_means_in_it_and_sorts_after_every_id() -> None:
    assert ALGORITHM.startswith(MEAN_ALGORITHM)
    assert ALGORITHM > "ffffffff-ffff-ffff-ffff-ffffffffffff"
