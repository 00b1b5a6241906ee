"""Cluster ids that stay."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.clustering.grouping.stable_ids import Fate, StableIds, keep_cluster_ids


def keep(old: str, labels: list[int], *, away: str = "", new_away: str = "", lasting: str = "") -> StableIds:
    """``old`` names a cluster per face by letter, '.' for none; those in ``away`` were put away, as the groups ``new_away``."""
    numbers = count(1)
    groups = max(labels, default=-1) + 1
    return keep_cluster_ids(
        [None if letter == "." else letter for letter in old],
        np.array(labels, dtype=np.int32),
        lambda: f"new{next(numbers)}",
        old_away=np.array([letter in away for letter in old], dtype=np.bool_),
        new_away=np.array([str(group) in new_away for group in range(groups)], dtype=np.bool_),
        lasting=lasting,
    )


def fate(**counts: int) -> Fate:
    return Fate(**{"kept": 0, "grown": 0, "split": 0, "merged": 0, "created": 0, "gone": 0, **counts})


def test_the_same_groups_keep_their_ids() -> None:
    assert keep("aaabbb", [1, 1, 1, 0, 0, 0]) == StableIds(("b", "a"), fate(kept=2))


def test_a_split_keeps_the_id_at_the_larger_half() -> None:
    assert keep("aaaaaaa", [0, 0, 0, 1, 1, 1, 1]) == StableIds(("new1", "a"), fate(kept=1, split=1, created=1))


def test_a_merge_keeps_the_larger_id_and_the_other_is_gone() -> None:
    assert keep("aaabbbbb", [0] * 8) == StableIds(("b",), fate(kept=1, grown=1, merged=1, gone=1))


def test_growth_and_new_groups() -> None:
    found = keep("aaa......", [0, 0, 0, 0, 0, 0, 1, 1, 1])
    assert found == StableIds(("a", "new1"), fate(kept=1, grown=1, created=1))


def test_strays_of_a_dissolved_cluster_do_not_pass_on_its_id() -> None:
    assert keep("a" * 20 + "." * 9, [-1] * 17 + [0] * 12) == StableIds(("new1",), fate(created=1, gone=1))


def test_a_cluster_that_was_put_away_passes_its_id_to_a_group_that_is_put_away_alone() -> None:
    assert keep("aaaa", [0] * 4, away="a", new_away="0").ids == ("a",)
    assert keep("aaaa", [0] * 4, away="a").ids == ("new1",)
    assert keep("aaaa", [0] * 4, new_away="0").ids == ("new1",)


def test_an_id_that_faces_without_a_group_keep_is_not_gone() -> None:
    assert keep("aabb", [-1] * 4, lasting="a") == StableIds((), fate(gone=1))


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.integers(-1, 4)), max_size=40))
def test_one_to_one_and_repeatable(faces: list[tuple[str | None, int]]) -> None:
    present = sorted({label for _, label in faces if label >= 0})
    labels = np.array([present.index(label) if label >= 0 else -1 for _, label in faces], dtype=np.int32)
    old = [name for name, _ in faces]

    def run() -> StableIds:
        numbers = count(1)
        return keep_cluster_ids(old, labels, lambda: f"new{next(numbers)}")

    found = run()
    assert found == run()
    assert len(found.ids) == len(present)
    assert len(set(found.ids)) == len(found.ids)
    kept = {name for name in found.ids if not name.startswith("new")}
    fate = found.fate
    known = {name for name in old if name is not None}
    assert kept <= known
    assert (fate.kept, fate.created, fate.gone) == (len(kept), len(present) - len(kept), len(known) - len(kept))
    again = keep_cluster_ids([found.ids[label] if label >= 0 else None for label in labels], labels, lambda: "never")
    assert again.ids == found.ids


def test_lengths_must_fit() -> None:
    with pytest.raises(ValueError, match="old cluster id"):
        keep_cluster_ids(["a"], np.array([0, 1]), lambda: "x")
