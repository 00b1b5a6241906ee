"""Small real processes to supervise, and looking whether any is left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from deploy.local.directory import StackDirectory, is_locked
from deploy.local.plan import Plan, Port, ProcessSpec, RestartPolicy, TcpListens
from deploy.local.ports import address

FAKE = Path(__file__).with_name("fake_process.py")
EVENTUALLY_S = 30.0
PATIENCE = RestartPolicy(first_pause_s=0.05, max_pause_s=0.5, start_attempts=2, ready_timeout_s=20.0)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition`` holds; fail saying ``what`` did not happen."""
    deadline = time.monotonic() + EVENTUALLY_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {EVENTUALLY_S:g} s")
        time.sleep(0.02)


def processes_of(directory: StackDirectory) -> list[psutil.Process]:
    """Every live process that belongs to the stack: by the lock it holds, its command line or where it stands."""
    root = str(directory.root)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            holds = any(file.path.startswith(root) for file in process.open_files())
            if holds or process.cwd().startswith(root) or any(root in word for word in process.cmdline()):
                found.append(process)
    return found


def assert_nothing_left(directory: StackDirectory) -> None:
    eventually(lambda: not processes_of(directory), "all processes of the stack end")
    assert not is_locked(directory.lock)
    assert not directory.stack.exists()


def fake(name: str, port: int, *options: str, after: tuple[str, ...] = (), grace_s: float = 5.0) -> ProcessSpec:
    """A process that listens on ``port``; ``options`` are those of ``fake_process.py``."""
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-I", str(FAKE), name, str(port), *options),
        ready=TcpListens(address(port)),
        after=after,
        ports=(Port("tcp", port),),
        stop_grace_s=grace_s,
    )


def plan_of(*processes: ProcessSpec) -> Plan:
    return Plan(processes=processes, port_base=processes[0].ports[0].number, restarts=PATIENCE, orphan_grace_s=1.0)
