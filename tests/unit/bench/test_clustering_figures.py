"""What groups are worth, against the definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.areas.clustering.figures import find_exponent, measure_rand, score_groups
from bench.embeddings import BLOB, JUNK

few = st.lists(st.tuples(st.integers(BLOB, 4), st.integers(-1, 4)), min_size=2, max_size=25)


def same(labels: list[int], i: int, j: int) -> bool:
    return i == j or (labels[i] == labels[j] and labels[i] >= 0)


@given(few.filter(lambda faces: any(truth != BLOB for truth, _ in faces)))
def test_scores_equal_the_definitions_without_the_blob(faces: list[tuple[int, int]]) -> None:
    score = score_groups(np.array([t for t, _ in faces]), np.array([f for _, f in faces]))
    truth, found = map(list, zip(*[face for face in faces if face[0] != BLOB], strict=True))
    pairs = [(same(truth, i, j), same(found, i, j)) for i, j in combinations(range(len(truth)), 2)]
    both, claimed, real = sum(t and f for t, f in pairs), sum(f for _, f in pairs), sum(t for t, _ in pairs)
    assert score.pairwise_precision == pytest.approx(both / claimed if claimed else 1.0)
    assert score.pairwise_recall == pytest.approx(both / real if real else 1.0)
    everyone = range(len(truth))
    shared = [sum(same(truth, i, j) and same(found, i, j) for j in everyone) for i in everyone]
    mates = [sum(same(found, i, j) for j in everyone) for i in everyone]
    own = [sum(same(truth, i, j) for j in everyone) for i in everyone]
    assert score.bcubed_precision == pytest.approx(np.mean(np.divide(shared, mates)))
    assert score.bcubed_recall == pytest.approx(np.mean(np.divide(shared, own)))


def test_junk_belongs_alone_and_the_blob_anywhere() -> None:
    truth = np.array([0, 0, 0, JUNK, JUNK, BLOB, BLOB])
    right = score_groups(truth, np.array([0, 0, 0, -1, -1, 0, 1]))
    assert (right.pairwise_f1, right.bcubed_f1) == (1.0, 1.0)
    junk_grouped = score_groups(truth, np.array([0, 0, 0, 1, 1, -1, -1]))
    assert (junk_grouped.pairwise_precision, junk_grouped.pairwise_recall) == (0.75, 1.0)
    face_left_out = score_groups(truth, np.array([0, 0, -1, -1, -1, -1, -1]))
    assert face_left_out.pairwise_precision == 1.0
    assert face_left_out.pairwise_recall == pytest.approx(1 / 3)


@given(few)
def test_the_rand_index_equals_its_definition_over_pairs(faces: list[tuple[int, int]]) -> None:
    left, right = [left for left, _ in faces], [right for _, right in faces]
    pairs = [(same(left, i, j), same(right, i, j)) for i, j in combinations(range(len(faces)), 2)]
    ours, theirs = sum(one for one, _ in pairs), sum(other for _, other in pairs)
    both = sum(one and other for one, other in pairs)
    chance, highest = ours * theirs / len(pairs), (ours + theirs) / 2
    expected = 1.0 if highest == chance else (both - chance) / (highest - chance)
    assert measure_rand(np.array(left), np.array(right)) == pytest.approx(expected)


def test_the_rand_index_knows_no_names_and_no_order() -> None:
    groups = np.array([0, 0, 1, 1, 1, -1, -1, 2, 2])
    renamed = np.array([5, 5, 0, 0, 0, -1, -1, 3, 3])
    assert measure_rand(groups, renamed) == 1.0
    noise_together = np.where(groups < 0, 7, groups)
    assert measure_rand(groups, noise_together) == measure_rand(noise_together, groups) < 1.0


def test_the_exponent_of_a_power_law_is_its_own() -> None:
    assert find_exponent((1_000, 2 * 1_000**1.3), (50_000, 2 * 50_000**1.3)) == pytest.approx(1.3)
