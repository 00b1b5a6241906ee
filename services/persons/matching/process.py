"""A training in a process of its own."""

from __future__ import annotations

from services.persons.matching.pipeline import learn_matcher
from services.persons.matching.request import Cancelled, Report, TrainedMatcher, TrainingRequest
from shared.child import work_in_child


def learn_in_process(request: TrainingRequest, report: Report, cancelled: Cancelled) -> TrainedMatcher:
    """As :func:`learn_matcher`, in a child process; blocks. Raises what that raises, or :class:`ChildDied`."""
    return work_in_child(learn_matcher, request, report, cancelled)
