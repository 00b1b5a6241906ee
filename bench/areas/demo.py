"""The main job from end to end: seconds by stage, peak memory by process, and the figures against the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.options import BenchOptions
from bench.rows import ROOT, BenchRow, make_row

COMMAND = "make bench AREA=demo"
QUALITY = (
    "detection_recall",
    "detection_precision",
    "cluster_pairwise_f1",
    "cluster_bcubed_f1",
    "suggestion_precision",
)


def measure(options: BenchOptions) -> list[BenchRow]:
    """Run the demo in fresh folders."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "demo", "--out", folder], cwd=ROOT, check=True)
            summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
        for stage, seconds in summary["seconds_by_stage"].items():
            found[stage, "seconds"].append(seconds)
        found["all stages", "seconds"].append(sum(summary["seconds_by_stage"].values()))
        found["detect", "photos per second"].append(summary["photos"] / summary["seconds_by_stage"]["detect"])
        for process, megabytes in summary["peak_rss_mb_by_process"].items():
            found[process, "peak RSS, MB"].append(megabytes)
        for name in QUALITY:
            found[name, "share"].append(summary[name])
    return [make_row(row, metric, values, COMMAND) for (row, metric), values in found.items()]
