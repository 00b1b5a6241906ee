"""Verification figures, against counting pairs one by one and against cases worked out by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from shared.faces.embeddings import Vectors, normalise
from shared.faces.verification import (
    PairScores,
    agree_on_neighbours,
    carry_threshold,
    equal_error_rate,
    find_threshold,
    score_pairs,
    share_accepted,
)


def people_around(persons: int, faces: int, spread: float, seed: int = 3) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Unit vectors around one direction per person, in 16 dimensions."""
    draw = np.random.default_rng(seed)
    owners = np.repeat(np.arange(persons), faces)
    middles = normalise(draw.standard_normal((persons, 16)))
    return normalise(middles[owners] + spread * draw.standard_normal((len(owners), 16))), owners


def rising(*values: float) -> npt.NDArray[np.float32]:
    return np.array(sorted(values), dtype=np.float32)


def test_every_pair_is_scored_once_across_blocks() -> None:
    vectors, people = people_around(persons=150, faces=4, spread=0.3)
    assert len(vectors) > 512, "more than one block of rows"
    pairs = score_pairs(vectors, people)
    genuine: list[float] = []
    impostor: list[float] = []
    for left, right in combinations(range(len(vectors)), 2):
        kind = genuine if people[left] == people[right] else impostor
        kind.append(float(vectors[left] @ vectors[right]))
    assert pairs.genuine.tolist() == pytest.approx(sorted(genuine), abs=1e-6)
    assert pairs.impostor.tolist() == pytest.approx(sorted(impostor), abs=1e-6)


def test_the_threshold_accepts_as_many_as_it_may_and_no_more() -> None:
    impostor = rising(*(index / 1000 for index in range(1000)))
    threshold = find_threshold(impostor, 1e-3)
    assert 0.998 < threshold <= 0.999
    assert share_accepted(impostor, threshold) == pytest.approx(1e-3)
    none = find_threshold(impostor, 1e-4)
    assert none > 0.999
    assert share_accepted(impostor, none) == 0
    assert share_accepted(impostor, find_threshold(impostor, 1.0)) == 1


def test_equal_scores_are_accepted_together_or_not_at_all() -> None:
    impostor = rising(*([0.1] * 998), 0.5, 0.5)
    threshold = find_threshold(impostor, 1e-3)
    assert share_accepted(impostor, threshold) == 0
    assert share_accepted(impostor, 0.5) == pytest.approx(2e-3)


def test_equal_error_rate() -> None:
    apart = PairScores(genuine=rising(0.7, 0.8, 0.9), impostor=rising(0.1, 0.2, 0.3))
    assert equal_error_rate(apart) == 0
    # At 0.5 one genuine pair of four is refused, and one impostor pair of four accepted.
    mixed = PairScores(genuine=rising(0.3, 0.6, 0.7, 0.8), impostor=rising(0.1, 0.2, 0.25, 0.5))
    assert equal_error_rate(mixed) == pytest.approx(0.25)


def test_a_threshold_is_carried_by_the_share_that_passes() -> None:
    of = rising(*np.linspace(0.0, 0.5, 1001))
    to = rising(*np.linspace(0.2, 0.4, 501))
    carried = carry_threshold(0.45, of, to)
    assert carried is not None
    assert share_accepted(to, carried) == pytest.approx(share_accepted(of, 0.45), abs=2e-3)
    same = carry_threshold(0.45, of, of)
    assert same == pytest.approx(0.45, abs=5e-4)


def test_a_threshold_beyond_every_pair_cannot_be_carried() -> None:
    pairs = rising(0.1, 0.2, 0.3)
    assert carry_threshold(0.9, pairs, pairs) is None
    assert carry_threshold(-1.0, pairs, pairs) is None
    assert carry_threshold(0.2, rising(), pairs) is None


def test_neighbours_agree_wholly_after_a_rotation_and_hardly_by_chance() -> None:
    vectors, _ = people_around(persons=200, faces=3, spread=0.3)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((16, 16)))[0].astype(np.float32)
    assert agree_on_neighbours(vectors, normalise(vectors @ turn), 10) > 0.999
    strangers = normalise(np.random.default_rng(2).standard_normal(vectors.shape))
    assert agree_on_neighbours(vectors, strangers, 10) < 0.05


def test_neighbours_are_as_many_as_there_are_and_never_the_face_itself() -> None:
    three = normalise(np.eye(3))
    assert agree_on_neighbours(three, three, 10) == 1
    line = normalise([[1.0, 0.0], [0.9, 0.4], [0.0, 1.0]])
    other = normalise([[1.0, 0.0], [0.0, 1.0], [0.9, 0.4]])
    # Each model's nearest: 1, 0, 1 and 2, 2, 0.
    assert agree_on_neighbours(line, other, 1) == 0
    with pytest.raises(ValueError, match="at least two"):
        agree_on_neighbours(three[:1], three[:1], 10)
