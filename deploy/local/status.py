"""What runs in a directory and how it is, asked of the processes themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.local.directory import StackDirectory, is_locked
from deploy.local.errors import StackNotRunningError
from deploy.local.memory import measure_resident_mb
from deploy.local.plan import Plan, ProcessSpec
from deploy.local.process import ProcessState, State
from deploy.local.readiness import NotReadyError, check_ready
from deploy.local.supervisor import StackState

HEALTHY = "ok"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One line of ``kith status``. ``health`` is ``ok``, or what is wrong in words."""

    name: str
    state: State
    pid: int | None
    ports: dict[str, int]
    uptime_s: float
    rss_mb: float
    restarts: int
    health: str
    log: str


async def read_status(directory: StackDirectory, *, now: float) -> list[ProcessStatus]:
    """Each process that is to run, in start order; ``now`` is a Unix time. Raises ``StackNotRunningError``."""
    if not is_locked(directory.lock) or not directory.state.exists():
        raise StackNotRunningError(f"nothing runs in {directory.root}")
    plan = Plan.from_json(directory.plan.read_text(encoding="utf-8"))
    state = StackState.from_json(directory.state.read_text(encoding="utf-8"))
    states = {row.name: row for row in state.processes}
    shown = [
        (spec, states[spec.name])
        for name in (name for layer in plan.layers() for name in layer)
        for spec in plan.processes
        if spec.name == name and states[name].state is not State.DONE
    ]
    memory = measure_resident_mb({row.name: row.pid for _, row in shown if row.pid is not None})
    health = await asyncio.gather(*(_ask_health(spec, row) for spec, row in shown))
    return [
        ProcessStatus(
            name=spec.name,
            state=row.state,
            pid=row.pid,
            ports={port.use: port.number for port in spec.ports},
            uptime_s=round(max(now - row.since, 0.0), 1) if row.state is State.RUNNING else 0.0,
            rss_mb=round(memory.get(spec.name, 0.0), 1),
            restarts=row.restarts,
            health=answer,
            log=row.log,
        )
        for (spec, row), answer in zip(shown, health, strict=True)
    ]


async def _ask_health(spec: ProcessSpec, row: ProcessState) -> str:
    if row.state is not State.RUNNING:
        return row.detail or row.state.value
    try:
        await check_ready(spec.ready)
    except NotReadyError as error:
        return str(error)
    return HEALTHY


def format_status(rows: Sequence[ProcessStatus]) -> str:
    """The rows as a table."""
    header = ("PROCESS", "STATE", "PID", "PORTS", "UPTIME", "RSS MB", "RESTARTS", "HEALTH")
    lines = [header, *(_format_row(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _format_row(row: ProcessStatus) -> tuple[str, ...]:
    return (
        row.name,
        row.state.value,
        str(row.pid or "-"),
        " ".join(f"{use}:{number}" for use, number in row.ports.items()),
        format_seconds(row.uptime_s),
        f"{row.rss_mb:.0f}",
        str(row.restarts),
        row.health,
    )


def format_seconds(seconds: float) -> str:
    """``42s``, ``3m05s``, ``2h03m``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
