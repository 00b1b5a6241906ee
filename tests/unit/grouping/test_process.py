"""A grouping in its own process, and compiled code without a cache."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from typing import Any

import numpy as np
import pytest

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.process import group_in_process
from services.clustering.grouping.request import GroupingCancelled, GroupingRequest, GroupingResult, Progress
from shared.child import ChildDied
from shared.errors import PreconditionFailed, Reason
from tests.unit.grouping.conftest import never


def test_result_and_progress_come_back(request_5k: GroupingRequest, result_5k: GroupingResult) -> None:
    seen: list[Progress] = []
    result = group_in_process(request_5k, seen.append, never)
    np.testing.assert_array_equal(result.labels, result_5k.labels)
    assert result.thresholds == result_5k.thresholds
    assert seen[-1].done == seen[-1].total == 1


def test_errors_travel_as_they_were_raised() -> None:
    raised = PreconditionFailed("too much", reason=Reason.MEMORY_BUDGET, metadata={"budget_mb": "10"})
    arrived = pickle.loads(pickle.dumps(raised))
    assert (type(arrived), arrived.reason, arrived.metadata) == (type(raised), raised.reason, raised.metadata)
    assert isinstance(pickle.loads(pickle.dumps(GroupingCancelled())), GroupingCancelled)


def test_cancelling_ends_the_process(request_5k: GroupingRequest) -> None:
    with pytest.raises(GroupingCancelled):
        group_in_process(request_5k, lambda _: None, lambda: True)


def test_a_killed_process_is_reported(request_5k: GroupingRequest) -> None:
    def kill(_: Progress) -> None:
        for child in multiprocessing.active_children():
            if child.pid:
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(ChildDied, match=r"^a process of its own ended with exit code -9$"):
        group_in_process(request_5k, kill, never)


def test_code_without_a_place_for_its_cache_is_compiled_all_the_same() -> None:
    names: dict[str, Any] = {}
    exec(compile("def double(x):\n    return 2 * x\n", "<nowhere>", "exec"), names)  # no file, so no cache folder
    double = compiled(names["double"])
    assert double(21) == 42
    assert double.stats.cache_path is None
