"""``python -m demo``: set up a stack, run the main job, write the report, stop the stack."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console

from demo.client import JobFailed, connect
from demo.drawing import draw_album
from demo.job import MainJob, Outcome
from demo.report import render_report
from demo.summary import summarise
from demo.truth import Truth, read_album, read_folder
from deploy.local.errors import StackError
from deploy.local.stack import RunningStack, StackOptions, start_stack

# The pack was trained on other people: drawing keeps their seeds apart.
SEED = 2026
PEOPLE = 24
PHOTOS = 240


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="From photos to people: detect, group, name, ask, and report, on the embedded stack.",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="a folder of your own photos; sub-folders name people (default: draws some)",
    )
    parser.add_argument("--pack", help="an InsightFace model pack, by name or folder (default: the demo's own)")
    parser.add_argument("--out", type=Path, default=Path("demo/out"), help="where report.html and summary.json go")
    parser.add_argument("--seed", type=int, default=SEED, help="of the drawn photos")
    parser.add_argument("--people", type=int, default=PEOPLE, help="how many people to draw")
    parser.add_argument("--count", type=int, default=PHOTOS, help="how many photos to draw")
    parser.add_argument("--port-base", type=int, default=0, help="first port of the stack (default: a free block)")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    console = Console()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    try:
        begun = time.perf_counter()
        truth, folder, title = _gather_photos(arguments, out, console)
        seconds["photos"] = round(time.perf_counter() - begun, 2)
        shutil.rmtree(out / "stack", ignore_errors=True)
        console.print("starting PostgreSQL, Valkey, Qdrant, four servers and four workers")
        begun = time.perf_counter()
        options = StackOptions(
            directory=out / "stack",
            port_base=arguments.port_base,
            pack=arguments.pack,
            photos=(folder,),
            fsync=False,
        )
        with start_stack(options) as stack:
            seconds["start"] = round(time.perf_counter() - begun, 2)
            summary, page = asyncio.run(_run(stack, truth, title, seconds, console))
    except (StackError, FileNotFoundError, JobFailed) as error:
        console.print(f"[red]the demo failed:[/red] {error}", highlight=False)
        return 1
    except grpc.aio.AioRpcError as error:
        console.print(f"[red]the demo failed:[/red] {error.code().name}: {error.details()}", highlight=False)
        return 1
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _print_summary(summary, out, console)
    if not summary["consistent"]:
        console.print("[red]PostgreSQL and Qdrant differ; see the report[/red]")
        return 1
    return 0


def _gather_photos(arguments: argparse.Namespace, out: Path, console: Console) -> tuple[Truth, Path, str]:
    if arguments.photos is not None:
        folder = arguments.photos.resolve()
        return read_folder(folder), folder, f"Kith: people in {folder.name}"
    folder = out / "photos"
    shutil.rmtree(folder, ignore_errors=True)
    console.print(f"drawing {arguments.count} photos of {arguments.people} people and strangers")
    draw_album(arguments.seed, people=arguments.people, photos=arguments.count, out=folder)
    return read_album(folder), folder, "Kith: people in drawn photos"


async def _run(
    stack: RunningStack, truth: Truth, title: str, seconds: dict[str, float], console: Console
) -> tuple[dict[str, Any], str]:
    """Run the job; answers the summary and the page."""
    async with connect(stack.addresses, console) as kith:
        outcome: Outcome = await MainJob(kith, truth, console).run()
        seconds |= outcome.seconds
        summary = summarise(truth, outcome, seconds, read_peaks(stack))
        begun = time.perf_counter()
        page = await render_report(kith, truth, outcome, summary, title)
        summary["seconds_by_stage"]["report"] = round(time.perf_counter() - begun, 2)
    return summary, page


def read_peaks(stack: RunningStack) -> dict[str, float]:
    """Peak resident MB of each process of a stack so far."""
    peaks: dict[str, float] = json.loads(stack.directory.peak_rss.read_text(encoding="utf-8"))
    return peaks


def _print_summary(summary: dict[str, Any], out: Path, console: Console) -> None:
    for name, value in summary.items():
        if not isinstance(value, dict) and value is not None:
            console.print(f"  {name:<22} {value}", highlight=False)
    spent = sum(summary["seconds_by_stage"].values())
    console.print(f"  {'seconds':<22} {spent:.1f}", highlight=False)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
