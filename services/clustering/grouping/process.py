"""A grouping in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.increment_request import IncrementRequest, IncrementResult
from services.clustering.grouping.request import Cancelled, GroupingRequest, GroupingResult, Report
from shared.child import work_in_child


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request whose arrays that lie in files travel by the files' names: the child maps them again, instead of being sent a
    copy of a gigabyte.
    """

    request: GroupingRequest
    paths: dict[str, str]

    @classmethod
    def of(cls, request: GroupingRequest) -> _Sent:
        """To be sent."""
        values = {each.name: getattr(request, each.name) for each in fields(request)}
        paths = {name: str(value.filename) for name, value in values.items() if isinstance(value, np.memmap)}
        nothing: dict[str, Any] = dict.fromkeys(paths, np.empty(0, dtype=np.float32))
        return cls(replace(request, **nothing), paths)

    def open(self) -> GroupingRequest:
        """As it was."""
        arrays: dict[str, Any] = {name: np.load(path, mmap_mode="r") for name, path in self.paths.items()}
        return replace(self.request, **arrays)


def group_in_process(request: GroupingRequest, report: Report, cancelled: Cancelled) -> GroupingResult:
    """As :func:`group_faces`, in a child process; blocks. Raises what that raises, or :class:`ChildDied`.

    Arrays that were opened from an ``.npy`` file by ``numpy.load`` or ``open_memmap`` are not copied.
    """
    return work_in_child(_group, _Sent.of(request), report, cancelled)


def place_in_process(request: IncrementRequest, report: Report, cancelled: Cancelled) -> IncrementResult:
    """As :func:`place_faces`, in a child process, like :func:`group_in_process`."""
    nothing: npt.NDArray[np.float32] = np.empty((0, 1), dtype=np.float32)
    free = replace(request.faces, vectors=nothing, anchors=None, graph=None)
    return work_in_child(_place, (replace(request, faces=free), _Sent.of(request.faces)), report, cancelled)


# Imported there, and not above: the parent never groups, and need not pay two seconds and 150 MB for numba and scikit-learn.


def _group(sent: _Sent, report: Report, cancelled: Cancelled) -> GroupingResult:
    from services.clustering.grouping.pipeline import group_faces

    return group_faces(sent.open(), report, cancelled)


def _place(sent: tuple[IncrementRequest, _Sent], report: Report, cancelled: Cancelled) -> IncrementResult:
    from services.clustering.grouping.increment import place_faces

    request, faces = sent
    return place_faces(replace(request, faces=faces.open()), report, cancelled)
