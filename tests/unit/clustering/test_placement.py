"""A grouping held against the present: what outlives every run."""

from __future__ import annotations

from itertools import count
from uuid import UUID

import numpy as np

from services.clustering.domain.placement import Groups, Placement, place_groups
from services.clustering.repository.memberships import Place


def place(
    old: str, labels: str, *, away: str = "", anchored: str = "", pinned: str = "", gone: str = "", wider: str = ""
) -> Placement:
    """One letter per face: its old cluster ('.': none) and its new group by digit ('.': none). Clusters in ``away`` were put
    away; faces at the positions in ``anchored`` had been put together by a human, those in ``pinned`` have been since, those in
    ``gone`` went away. Clusters in ``wider`` have faces besides these.
    """
    face_ids = [UUID(int=row) for row in range(len(old))]
    numbers = count(1)
    groups = Groups(
        face_ids,
        np.array([-1 if label == "." else int(label) for label in labels], dtype=np.int32),
        np.linspace(0.9, 0.5, len(old), dtype=np.float32),
        np.array([0 if str(row) in anchored else -1 for row in range(len(old))], dtype=np.int32),
    )
    present = {
        face_id: Place(None if letter == "." else letter, letter in away, str(row) in anchored + pinned)
        for row, (face_id, letter) in enumerate(zip(face_ids, old, strict=True))
        if str(row) not in gone
    }
    return place_groups(groups, present, 3, lambda: f"new{next(numbers)}", set(wider))


def members(found: Placement) -> dict[str, list[int]]:
    """Rows by cluster, of the memberships to be written."""
    clusters: dict[str, list[int]] = {}
    for each in found.memberships:
        clusters.setdefault(each.cluster_id, []).append(each.face_id.int)
    return clusters


def rows(face_ids: object) -> list[int]:
    assert isinstance(face_ids, list)
    return [face_id.int for face_id in face_ids]


def test_faces_go_where_their_group_is() -> None:
    found = place("aaa...b", "000111.")
    assert members(found) == {"a": [0, 1, 2], "new1": [3, 4, 5]}
    assert (rows(found.ungrouped), rows(found.changed_faces)) == ([6], [3, 4, 5, 6])
    assert found.changed_clusters == ["b", "new1"]
    assert found.groups == {"a": 0, "new1": 1}
    assert (found.new_ids, found.dismissed) == (["new1"], set())


def test_what_went_away_meanwhile_is_left_out_and_what_shrank_is_no_group() -> None:
    found = place("......", "000111", gone="01")
    assert members(found) == {"new1": [3, 4, 5]}
    # The group it was among those that were found.
    assert found.groups == {"new1": 1}
    assert found.faces == 4


def test_one_new_face_does_not_bring_back_a_cluster_that_was_put_away() -> None:
    found = place("aaaa.", "00000", away="a")
    assert members(found) == {"a": [0, 1, 2, 3, 4]}
    assert found.dismissed == {"a"}
    assert found.new_ids == []


def test_parts_of_a_cluster_that_was_put_away_are_put_away() -> None:
    found = place("aaaaaaa", "0000111", away="a")
    assert members(found) == {"a": [0, 1, 2, 3], "new1": [4, 5, 6]}
    assert found.dismissed == {"a", "new1"}


def test_among_others_faces_that_were_put_away_stay_away_and_do_not_take_the_others_along() -> None:
    found = place("aabbbb...", "000000000", away="a")
    assert members(found) == {"b": [2, 3, 4, 5, 6, 7, 8]}
    assert found.dismissed == set()
    # They keep the place they had.
    assert rows(found.changed_faces) == [6, 7, 8]
    assert rows(found.ungrouped) == []


def test_a_face_that_was_put_away_and_is_in_no_group_stays_away() -> None:
    found = place("aaab", "....", away="a")
    assert members(found) == {}
    assert (rows(found.ungrouped), found.fate.gone) == ([3], 1)


def test_a_cluster_that_was_put_away_keeps_those_who_are_in_no_group_any_more() -> None:
    found = place("aaaaa", "000..", away="a")
    assert members(found) == {"a": [0, 1, 2]}
    assert (rows(found.ungrouped), rows(found.changed_faces)) == ([], [])


def test_a_group_made_by_a_human_may_be_small() -> None:
    assert members(place("aa....", "001111", anchored="01")) == {"a": [0, 1], "new1": [2, 3, 4, 5]}
    assert members(place("aa....", "001111")) == {"new1": [2, 3, 4, 5]}


def test_a_group_with_what_a_human_made_is_that_cluster_however_many_others_there_are() -> None:
    found = place("ppbbbbbbb", "000000000", anchored="01")
    assert set(members(found)) == {"p"}
    assert found.fate.gone == 1


def test_a_cluster_that_reaches_beyond_the_selection_lives_on() -> None:
    assert place("aaab", "....", wider="a").fate.gone == 1
    assert place("aaab", "....").fate.gone == 2


def test_what_a_human_parted_meanwhile_stays_parted() -> None:
    # One cluster when it was read, two now: "a" was split by hand, and all of it is pinned.
    found = place("aaabbb...", "000000000", pinned="012345")
    assert members(found) == {"new1": [6, 7, 8]}
    assert (rows(found.ungrouped), found.fate.gone) == ([], 0)


def test_what_was_put_together_by_hand_and_parted_by_hand_meanwhile_stays_parted() -> None:
    found = place("aaabbb...", "000000000", anchored="012345")
    assert members(found) == {"new1": [6, 7, 8]}


def test_nothing_comes_of_nothing() -> None:
    found = place("", "")
    assert (found.faces, found.touched, members(found)) == (0, [], {})
