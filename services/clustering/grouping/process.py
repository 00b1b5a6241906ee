"""A grouping in a process of its own."""

from __future__ import annotations

from services.clustering.grouping.request import Cancelled, GroupingRequest, GroupingResult, Report
from shared.child import work_in_child


def group_in_process(request: GroupingRequest, report: Report, cancelled: Cancelled) -> GroupingResult:
    """As :func:`group_faces`, in a child process; blocks. Raises what that raises, or :class:`ChildDied`."""
    return work_in_child(_group, request, report, cancelled)


def _group(request: GroupingRequest, report: Report, cancelled: Cancelled) -> GroupingResult:
    # Here, and not above: the parent never groups, and need not pay two seconds and 150 MB for numba and scikit-learn.
    from services.clustering.grouping.pipeline import group_faces

    return group_faces(request, report, cancelled)
