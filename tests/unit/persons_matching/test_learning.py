"""Learning a matcher from start to end: it gains where there is something to gain, and says so where there is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.persons.matching.pipeline import learn_matcher
from services.persons.matching.request import Phase, Progress, TrainingCancelled, TrainingOptions, TrainingRequest
from services.persons.matching.split import split_people
from shared.faces.embeddings import InvalidEmbedding
from tests.unit.persons_matching.conftest import never


def test_people_never_seen_are_told_apart_better(request_60: TrainingRequest) -> None:
    trained = learn_matcher(request_60, lambda _: None, never)
    verdict = trained.verdict
    assert verdict.better
    assert verdict.before.tar_at_far_1e3 < 0.2
    assert verdict.after.tar_at_far_1e3 > 0.4
    assert verdict.after.eer < verdict.before.eer / 2
    assert (trained.persons, trained.tuning_persons, trained.held_out_persons) == (31, 9, 20)
    assert (trained.faces, trained.held_out_faces) == (31 * 8, 20 * 8)
    assert trained.matrix.shape[0] == 32
    assert trained.matrix.dtype == np.float32


def test_where_nothing_is_to_be_learnt_it_is_not_called_better() -> None:
    # No direction says more about who it is than any other.
    random = np.random.default_rng(1)
    people = np.repeat(np.arange(60), 8)
    vectors = random.standard_normal((60, 32))[people] + 0.6 * random.standard_normal((480, 32))
    trained = learn_matcher(TrainingRequest(vectors, people, TrainingOptions(epochs=4)), lambda _: None, never)
    assert not trained.verdict.better
    assert trained.verdict.after.tar_at_far_1e3 > trained.verdict.before.tar_at_far_1e3 - 0.05


def test_the_same_faces_and_seed_give_the_same_matcher(request_60: TrainingRequest) -> None:
    first, second = (learn_matcher(request_60, lambda _: None, never) for _ in range(2))
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert first.verdict == second.verdict
    other = learn_matcher(replace(request_60, options=TrainingOptions(seed=1, epochs=4)), lambda _: None, never)
    assert not np.array_equal(first.matrix, other.matrix)


def test_the_held_out_leave_no_trace_in_the_matcher(request_60: TrainingRequest) -> None:
    trained = learn_matcher(request_60, lambda _: None, never)
    held_out = split_people(request_60.people, request_60.options).held_out
    changed = request_60.vectors.copy()
    changed[held_out] = np.random.default_rng(5).standard_normal((len(held_out), 32))
    again = learn_matcher(replace(request_60, vectors=changed), lambda _: None, never)
    np.testing.assert_array_equal(trained.matrix, again.matrix)
    assert trained.verdict != again.verdict


def test_epochs_are_reported_and_a_flag_ends_it(request_60: TrainingRequest) -> None:
    seen: list[Progress] = []
    learn_matcher(request_60, seen.append, never)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1] == Progress(Phase.MEASURE, 4, 4)
    with pytest.raises(TrainingCancelled):
        learn_matcher(request_60, lambda _: None, lambda: True)


def test_without_an_epoch_the_start_is_the_matcher(request_60: TrainingRequest) -> None:
    trained = learn_matcher(replace(request_60, options=TrainingOptions(epochs=0)), lambda _: None, never)
    assert trained.epoch == 0
    assert trained.verdict.better


def test_a_face_without_a_direction_is_refused(request_60: TrainingRequest) -> None:
    vectors = request_60.vectors.copy()
    vectors[7] = 0
    with pytest.raises(InvalidEmbedding):
        learn_matcher(replace(request_60, vectors=vectors), lambda _: None, never)
