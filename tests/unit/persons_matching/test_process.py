"""A training in its own process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest

from services.persons.matching.pipeline import learn_matcher
from services.persons.matching.process import learn_in_process
from services.persons.matching.request import Progress, TrainingCancelled, TrainingRequest
from shared.child import ChildDied
from tests.unit.persons_matching.conftest import never


def test_result_and_progress_come_back(request_60: TrainingRequest) -> None:
    seen: list[Progress] = []
    trained = learn_in_process(request_60, seen.append, never)
    np.testing.assert_array_equal(trained.matrix, learn_matcher(request_60, lambda _: None, never).matrix)
    assert seen[-1].done == seen[-1].total == 4


def test_errors_travel_as_they_were_raised(request_60: TrainingRequest) -> None:
    assert isinstance(pickle.loads(pickle.dumps(TrainingCancelled())), TrainingCancelled)
    with pytest.raises(ValueError, match="without a person"):
        learn_in_process(TrainingRequest(request_60.vectors[:8], request_60.people[:8]), lambda _: None, never)


def test_cancelling_ends_the_process(request_60: TrainingRequest) -> None:
    with pytest.raises(TrainingCancelled):
        learn_in_process(request_60, lambda _: None, lambda: True)


def test_a_killed_process_is_reported(request_60: TrainingRequest) -> None:
    def kill(_: Progress) -> None:
        for child in multiprocessing.active_children():
            if child.pid:
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(ChildDied, match=r"^a process of its own ended with exit code -9$"):
        learn_in_process(request_60, kill, never)
