"""Placing new faces beside the groups there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import adjusted_rand_score

from bench.embeddings import generate_faces
from services.clustering.grouping.increment import place_faces
from services.clustering.grouping.increment_request import IncrementRequest, IncrementResult
from services.clustering.grouping.pipeline import group_faces
from services.clustering.grouping.request import (
    Algorithm,
    GroupingCancelled,
    GroupingRequest,
    GroupingResult,
    GroupingSizes,
    Progress,
)
from services.clustering.grouping.thresholds import ARCFACE_THRESHOLDS
from shared.errors import InvalidRequest
from shared.faces.embeddings import normalise

SIZES = GroupingSizes(small_set=0)
Ints = npt.NDArray[np.int32]


def quiet(_: Progress) -> None:
    return


def never() -> bool:
    return False


def make_request(vectors: npt.NDArray[np.floating], anchors: Ints | None = None) -> GroupingRequest:
    count = len(vectors)
    return GroupingRequest(
        vectors,
        np.arange(count),
        np.ones(count, dtype=np.float32),
        anchors=anchors,
        pack_thresholds=ARCFACE_THRESHOLDS,
        sizes=SIZES,
    )


def group(vectors: npt.NDArray[np.floating]) -> GroupingResult:
    return group_faces(make_request(vectors), quiet, never)


def place(
    vectors: npt.NDArray[np.floating], homes: Ints, new: int, *, away: tuple[int, ...] = (), anchors: Ints | None = None
) -> IncrementResult:
    """Place the last ``new`` rows."""
    groups = int(homes.max(initial=-1)) + 1
    request = IncrementRequest(
        make_request(vectors, anchors),
        homes,
        np.arange(len(vectors)) >= len(vectors) - new,
        np.isin(np.arange(groups), away),
    )
    return place_faces(request, quiet, never)


def follow(homes: Ints, result: IncrementResult) -> Ints:
    """Where faces are afterwards, in groups 0..C-1."""
    after, free = homes.copy(), int(homes.max(initial=-1)) + 1
    for label, origin in enumerate(result.origins.tolist()):
        if origin < 0:
            origin, free = free, free + 1
        after[result.labels == label] = origin
    grouped = after >= 0
    after[grouped] = np.unique(after[grouped], return_inverse=True)[1]
    return after


def apart(labels: Ints) -> Ints:
    """Ungrouped faces as groups of their own."""
    result = labels.copy()
    alone = result < 0
    result[alone] = result.max(initial=-1) + 1 + np.arange(alone.sum(), dtype=np.int32)
    return result


def crowd(*sizes: int, seed: int = 0) -> npt.NDArray[np.float32]:
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(random.standard_normal((64, len(sizes))))[0].T
    return normalise(np.repeat(centres, sizes, axis=0) + 0.25 * random.standard_normal((sum(sizes), 64)) / 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_after_any_increments_a_full_run_gives_the_same_groups(dtype: type[np.floating]) -> None:
    made = generate_faces(3_600, seed=5, profile="r100")
    order = np.random.default_rng(1).permutation(len(made.vectors))
    vectors = made.vectors[order].astype(dtype)
    homes = group(vectors[:2_700]).labels
    for known in (2_700, 3_000, 3_300):
        homes = np.concatenate([homes, np.full(300, -1, dtype=np.int32)])
        result = place(vectors[: known + 300], homes, 300)
        assert result.pooled < 1_000
        homes = follow(homes, result)
    assert adjusted_rand_score(apart(homes), apart(group(vectors).labels)) >= 0.99


def test_groups_that_are_not_touched_are_not_named() -> None:
    vectors = crowd(6, 5, 4)
    homes = np.repeat(np.arange(3, dtype=np.int32), (6, 5, 4))
    new = vectors[:1]
    result = place(np.concatenate([vectors, new]), np.append(homes, np.int32(-1)), 1)
    assert result.origins.tolist() == [0]
    assert np.flatnonzero(result.labels == 0).tolist() == [0, 1, 2, 3, 4, 5, 15]
    assert (result.confidence[result.labels < 0] == 0).all()
    assert (result.confidence[result.labels == 0] > 0.9).all()
    assert result.medoids[0] in {0, 1, 2, 3, 4, 5, 15}
    assert result.separations[0] > 0.5


def test_no_new_face_changes_nothing() -> None:
    vectors = crowd(6, 5)
    result = place(vectors, np.repeat(np.arange(2, dtype=np.int32), (6, 5)), 0)
    assert (result.labels == -1).all()
    assert len(result.origins) == len(result.medoids) == result.pooled == 0


def test_new_faces_where_there_was_no_group_at_all() -> None:
    vectors = crowd(5)
    result = place(vectors, np.full(5, -1, dtype=np.int32), 5)
    assert (result.labels == 0).all()
    assert result.origins.tolist() == [-1]
    assert np.isnan(result.separations[0])


def test_one_that_was_put_away_gains_faces_and_merges_with_none() -> None:
    vectors = crowd(14)
    homes = np.array([0] * 6 + [1] * 4 + [-1] * 4, dtype=np.int32)
    # They are the same person: without a word from a human they would be one.
    assert np.bincount(follow(homes, place(vectors, homes, 4))).tolist() == [14]
    after = follow(homes, place(vectors, homes, 4, away=(0,)))
    assert (after[:6] == after[0]).all()
    assert (after[6:10] == after[6]).all()
    assert after[0] != after[6]
    assert (after[10:] >= 0).all()


def test_what_humans_parted_stays_apart() -> None:
    vectors = crowd(14)
    homes = np.array([0] * 6 + [1] * 4 + [-1] * 4, dtype=np.int32)
    after = follow(homes, place(vectors, homes, 4, anchors=homes))
    assert after[0] != after[6]


def test_every_algorithm_places() -> None:
    vectors = crowd(6, 5, 4)
    homes = np.array([0] * 6 + [-1] * 9, dtype=np.int32)
    for algorithm in Algorithm:
        request = IncrementRequest(
            replace(make_request(vectors), algorithm=algorithm), homes, homes < 0, np.zeros(1, dtype=np.bool_)
        )
        result = place_faces(request, quiet, never)
        assert sorted(np.bincount(result.labels[6:]).tolist()) == [4, 5], algorithm


def test_it_can_be_cancelled_and_wants_thresholds() -> None:
    vectors = crowd(6, 5)
    homes = np.repeat(np.array([0, -1], dtype=np.int32), (6, 5))
    request = IncrementRequest(make_request(vectors), homes, homes < 0, np.zeros(1, dtype=np.bool_))
    with pytest.raises(GroupingCancelled):
        place_faces(request, quiet, lambda: True)
    with pytest.raises(InvalidRequest):
        place_faces(replace(request, faces=replace(request.faces, pack_thresholds=None)), quiet, never)
    with pytest.raises(InvalidRequest):
        place_faces(replace(request, homes=homes[1:]), quiet, never)
