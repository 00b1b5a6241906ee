"""The shape of a result: rows, and the machine and commit they were measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One figure: the median of ``n`` runs, ``spread`` between the smallest and the largest, and how to get it again;
    ``commit``, if it was measured at another one than the rest.
    """

    row: str
    metric: str
    value: float
    n: int
    spread: float
    command: str
    commit: str = ""


def make_row(row: str, metric: str, values: Sequence[float], command: str) -> BenchRow:
    """A row of repeated measurements."""
    middle = statistics.median(values)
    return BenchRow(row, metric, round(middle, 4), len(values), round(max(values) - min(values), 4), command)


def describe_machine() -> dict[str, object]:
    """What the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def read_commit() -> str:
    """The commit that was measured, with ``+`` if files differ from it; empty outside a checkout."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    return f"{commit}+" if commit and git("status", "--porcelain") else commit


def write_results(name: str, rows: Sequence[BenchRow], *, pack: str) -> Path:
    """Write ``bench/results/<name>.json``; ``pack`` is the model pack that was measured.

    Rows that another command measured (a larger size, say) stay, each with the commit it was measured at, until that command
    runs again; not those of another machine or pack.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine, commit = describe_machine(), read_commit()
    kept = _keep_rows(path, rows, machine, pack)
    found = {
        "machine": machine,
        "commit": commit,
        "pack": pack,
        "rows": [_describe_row(row, commit) for row in [*rows, *kept]],
    }
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return path


def _keep_rows(path: Path, rows: Sequence[BenchRow], machine: dict[str, object], pack: str) -> list[BenchRow]:
    """Rows of the result there is that these do not replace."""
    if not path.exists():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    if before["pack"] != pack or any(before["machine"][name] != machine[name] for name in ("cpu", "cores")):
        return []
    commands, figures = {row.command for row in rows}, {(row.row, row.metric) for row in rows}
    kept = [BenchRow(**{"commit": before["commit"], **row}) for row in before["rows"]]
    return [row for row in kept if row.command not in commands and (row.row, row.metric) not in figures]


def _describe_row(row: BenchRow, commit: str) -> dict[str, object]:
    described = asdict(row)
    if row.commit in ("", commit):
        del described["commit"]
    return described


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
