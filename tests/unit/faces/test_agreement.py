"""Pairwise and BCubed figures."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.faces.agreement import measure_agreement

small = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=25)


def same(labels: list[int], i: int, j: int) -> bool:
    return i == j or (labels[i] == labels[j] and labels[i] >= 0)


@given(small)
def test_equals_the_definitions(pairs: list[tuple[int, int]]) -> None:
    truth, found = [t for t, _ in pairs], [f for _, f in pairs]
    result = measure_agreement(np.array(truth), np.array(found))
    together = [(same(truth, i, j), same(found, i, j)) for i, j in combinations(range(len(pairs)), 2)]
    both = sum(t and f for t, f in together)
    claimed, real = sum(f for _, f in together), sum(t for t, _ in together)
    assert result.pairwise_precision == pytest.approx(both / claimed if claimed else 1.0)
    assert result.pairwise_recall == pytest.approx(both / real if real else 1.0)
    precision, recall = [], []
    for i in range(len(pairs)):
        own = [j for j in range(len(pairs)) if same(found, i, j)]
        real_own = [j for j in range(len(pairs)) if same(truth, i, j)]
        shared = len(set(own) & set(real_own))
        precision.append(shared / len(own))
        recall.append(shared / len(real_own))
    assert result.bcubed_precision == pytest.approx(np.mean(precision))
    assert result.bcubed_recall == pytest.approx(np.mean(recall))


def test_perfect_and_torn() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1])
    assert measure_agreement(truth, truth * 7).pairwise_f1 == 1.0
    torn = measure_agreement(truth, np.array([0, 0, 2, 2, 1, 1]))
    assert torn.pairwise_precision == 1.0
    assert torn.pairwise_recall == pytest.approx(3 / 7)
    assert torn.bcubed_f1 < 1.0


def test_unequal_or_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        measure_agreement(np.array([0]), np.array([0, 1]))
    with pytest.raises(ValueError, match="at least one"):
        measure_agreement(np.array([], dtype=int), np.array([], dtype=int))
