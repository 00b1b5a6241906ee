"""The most memory each process of the stack ever used, which the demo's summary reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import psutil

MIB = 1024 * 1024


def measure_resident_mb(leaders: Mapping[str, int]) -> dict[str, float]:
    """Resident memory in MiB by name, of each process in ``leaders`` with all its descendants.

    A descendant counts with its own pages only (resident less shared): PostgreSQL's backends all map the same buffers,
    a pool's workers the same libraries, and the leader's figure has them already. Processes that are gone are left out.
    """
    children: dict[int, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter(["ppid"]):
        children[process.info["ppid"]].append(process)
    figures: dict[str, float] = {}
    for name, pid in leaders.items():
        try:
            resident = psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue
        figures[name] = (resident + _sum_private(pid, children)) / MIB
    return figures


def _sum_private(pid: int, children: Mapping[int, list[psutil.Process]]) -> int:
    total = 0
    for child in children.get(pid, ()):
        try:
            memory = child.memory_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += memory.rss - getattr(memory, "shared", 0) + _sum_private(child.pid, children)
    return total


class PeakMemory:
    """Remembers the highest figure per name."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}

    def sample(self, leaders: Mapping[str, int]) -> bool:
        """Measure once; True if a peak rose by a tenth of a MiB or more."""
        rose = False
        for name, figure in measure_resident_mb(leaders).items():
            rounded = round(figure, 1)
            if rounded > self.peaks.get(name, 0.0):
                self.peaks[name] = rounded
                rose = True
        return rose
