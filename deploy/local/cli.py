"""The ``kith`` command: the local stack up, down and its status."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import click

from deploy.local.directory import StackDirectory, is_locked
from deploy.local.errors import StackError, StackNotRunningError
from deploy.local.process import State
from deploy.local.stack import DEFAULT_PORT_BASE, RunningStack, StackOptions, start_stack
from deploy.local.status import HEALTHY, format_status, read_status
from deploy.local.stopping import stop_stack
from deploy.local.supervisor import StackState

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".kith"),
    show_default=True,
    help="Where the stack keeps its data, logs and addresses.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Kith on this machine: PostgreSQL, Valkey, Qdrant, the four servers and their workers."""


@main.command()
@directory_option
@click.option(
    "--port-base",
    type=click.IntRange(0, 65000),
    default=DEFAULT_PORT_BASE,
    show_default=True,
    help="First of 50 ports; 0 finds a free block.",
)
@click.option(
    "--pack",
    help="Model pack: a folder, or a name InsightFace knows. Default: KITH_MODEL_PACK if set, else the demo's.",
)
@click.option(
    "--next-pack",
    help="Another model pack, run by a second detection server at port base + 17, for libraries to move to.",
)
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="A folder that file: uris may point into, in place of KITH_IMAGES_ROOTS. May be given several times.",
)
@click.option("--fsync/--no-fsync", default=True, help="Whether PostgreSQL survives a power cut.  [default: fsync]")
@click.option("--detach/--foreground", default=True, help="Leave it running, or stop it at Ctrl-C.  [default: detach]")
def up(
    directory: Path,
    port_base: int,
    pack: str | None,
    next_pack: str | None,
    photos: tuple[Path, ...],
    fsync: bool,
    detach: bool,
) -> None:
    """Start everything and wait until it is ready."""
    options = StackOptions(
        directory=directory, port_base=port_base, pack=pack, next_pack=next_pack, photos=photos, fsync=fsync
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        stack = start_stack(options, tied=not detach, report=report_changes())
        if detach:
            click.echo(describe_stack(stack))
        else:
            _stay_in_foreground(stack)
    except StackError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted; everything is stopped", err=True)
        sys.exit(130)


@main.command()
@directory_option
@click.option("--purge", is_flag=True, help="Delete the directory with all its data afterwards.")
def down(directory: Path, purge: bool) -> None:
    """Stop everything; nothing to stop is fine."""
    place = StackDirectory.at(directory)
    began = time.monotonic()
    try:
        stopped = stop_stack(place)
    except StackError as error:
        raise click.ClickException(str(error)) from error
    if stopped:
        click.echo(f"stopped the stack in {place.root} after {time.monotonic() - began:.1f} s")
    else:
        click.echo(f"nothing runs in {place.root}")
    if purge and place.root.exists():
        # Only what a stack has made: --dir may be a slip of the hand.
        if not place.lock.exists():
            raise click.ClickException(f"{place.root} is no stack's directory; nothing is deleted")
        shutil.rmtree(place.root)
        click.echo(f"deleted {place.root}")


@main.command()
@directory_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(directory: Path, as_json: bool) -> None:
    """Show each process; exit status 1 unless all are healthy."""
    place = StackDirectory.at(directory)
    try:
        rows = asyncio.run(read_status(place, now=time.time()))
    except StackNotRunningError as error:
        if as_json:
            click.echo(json.dumps({"running": False, "healthy": False, "processes": []}, indent=1))
            sys.exit(1)
        raise click.ClickException(str(error)) from error
    healthy = all(row.health == HEALTHY for row in rows)
    if as_json:
        report = {
            "running": is_locked(place.lock),
            "healthy": healthy,
            "processes": [asdict(row) for row in rows],
        }
        click.echo(json.dumps(report, indent=1))
    else:
        click.echo(format_status(rows))
    sys.exit(0 if healthy else 1)


def report_changes() -> Callable[[StackState], None]:
    """A report for ``start_stack`` that prints a line whenever a process changes its state."""
    began = time.monotonic()
    shown: dict[str, tuple[State, int]] = {}

    def report(state: StackState) -> None:
        for row in state.processes:
            if shown.get(row.name) != (row.state, row.restarts):
                shown[row.name] = (row.state, row.restarts)
                if row.state is not State.WAITING:
                    detail = f": {row.detail}" if row.detail else ""
                    click.echo(f"{time.monotonic() - began:6.1f} s  {row.name:<20} {row.state.value}{detail}")

    return report


def describe_stack(stack: RunningStack) -> str:
    """What a person wants to know about a stack that has just become ready."""
    lines = ["", f"ready; logs and stack.json are in {stack.dir}", ""]
    lines += [f"  {name:<14} {target}" for name, target in stack.addresses.items()]
    lines += ["", "try:"]
    lines += [f"  grpcurl -plaintext {target} list" for target in list(stack.addresses.values())[:1]]
    return "\n".join([*lines, f"  kith status --dir '{stack.dir}'", f"  kith down --dir '{stack.dir}'"])


def _stay_in_foreground(stack: RunningStack) -> None:
    try:
        # Whoever reads this may interrupt at once, so it is said where an interrupt is a way to stop.
        click.echo(describe_stack(stack))
        status = stack.wait()
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
        stack.stop()
        return
    if status != 0:
        raise StackError(f"the supervisor ended; its log: {stack.directory.log('supervisor')}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
