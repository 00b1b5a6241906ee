"""``python -m bench [AREA ...]``: measure, write ``bench/results/<area>.json``, print the table."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import bench.areas
from bench.options import BenchOptions
from bench.rows import write_results
from deploy.local.services import DEMO_PACK


def main() -> int:
    areas = sorted(module.name for module in pkgutil.iter_modules(bench.areas.__path__))
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure Kith; figures are medians of the runs."
    )
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"what to measure: {', '.join(areas)} (default: all)")
    parser.add_argument("--repeat", type=int, default=1, help="runs per figure")
    parser.add_argument("--pack", type=Path, default=DEMO_PACK, help="model pack's folder (default: the demo's)")
    parser.add_argument("--photos", type=Path, help="folder of photos to detect on (default: faces the pack knows)")
    parser.add_argument("--size", help="measure only this, of an area that leaves it out otherwise (clustering: 1m)")
    parser.add_argument("--name", help="of the result, if one area is measured (default: the area's)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.areas) - set(areas))
    if unknown:
        parser.error(f"no such area: {', '.join(unknown)} (there are: {', '.join(areas)})")
    options = BenchOptions(arguments.repeat, arguments.pack.resolve(), arguments.photos, arguments.size)
    console = Console()
    for area in arguments.areas or areas:
        rows = importlib.import_module(f"bench.areas.{area}").measure(options)
        path = write_results(arguments.name or area, rows, pack=options.pack.name)
        table = Table("row", "metric", "value", "n", "spread", title=area, title_justify="left")
        for row in rows:
            table.add_row(row.row, row.metric, f"{row.value:g}", str(row.n), f"{row.spread:g}")
        console.print(table)
        console.print(f"written to {path}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
