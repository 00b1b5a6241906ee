"""kill -9 of any of the stack's own processes: nothing is left, and the directory can be used again at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from deploy.local.directory import StackDirectory, is_locked, read_holders
from deploy.local.plan import Plan
from deploy.local.stack import RunningStack, launch

from .stacks import assert_nothing_left, eventually, fake, plan_of, processes_of

# What a process can do to outlive its parent: children of its own, in sessions of their own, deaf to SIGTERM.
HARD_TO_END = ("--stubborn", "--child", "--escaped-child")


def start(directory: StackDirectory, plan: Plan, *, tied: bool = False) -> RunningStack:
    return launch(directory.root, lambda _: plan, environ=os.environ, tied=tied)


@pytest.mark.parametrize(
    ("victims", "options", "count"),
    [
        (["supervisor"], HARD_TO_END, 6),
        # The supervisor ends its processes' groups, but only the guard is given what has left them.
        (["guard"], ("--stubborn", "--child"), 5),
        # Only the kernel's signal to each process is left, so these must be such as heed it.
        (["guard", "supervisor"], (), 4),
    ],
)
def test_nothing_outlives_a_killed_supervisor_or_guard(
    directory: StackDirectory, base: int, victims: Sequence[str], options: Sequence[str], count: int
) -> None:
    stack = start(directory, plan_of(fake("easy", base), fake("hard", base + 1, *options, grace_s=0.5)))
    assert len(processes_of(directory)) == count
    holders = read_holders(directory.lock)
    for victim in victims:
        os.kill(holders[victim].pid, signal.SIGKILL)
    stack.wait()
    eventually(lambda: not processes_of(directory), "all processes of the stack end")
    assert not is_locked(directory.lock)


def test_a_directory_can_be_used_again_right_after_its_supervisor_was_killed(
    directory: StackDirectory, base: int
) -> None:
    plan = plan_of(fake("server", base, *HARD_TO_END, grace_s=0.5))
    first = start(directory, plan)
    os.kill(read_holders(directory.lock)["supervisor"].pid, signal.SIGKILL)
    with start(directory, plan) as second:
        assert second.is_running()
        assert not first.is_running()
    assert_nothing_left(directory)


def test_a_file_left_by_a_stack_killed_whole_does_not_count(directory: StackDirectory, base: int) -> None:
    stack = start(directory, plan_of(fake("server", base)))
    left = directory.stack.read_text()
    stack.stop()
    directory.stack.write_text(left)
    with start(directory, plan_of(fake("server", base + 1))):
        assert directory.stack.read_text() != left
    assert_nothing_left(directory)


def test_a_tied_stack_ends_with_the_process_that_started_it(directory: StackDirectory, base: int) -> None:
    directory.create()
    plan = directory.root / "tied.json"
    plan.write_text(plan_of(fake("server", base)).to_json())
    script = (
        "import os, pathlib, signal, sys\n"
        "from deploy.local.plan import Plan\n"
        "from deploy.local.stack import launch\n"
        "plan = Plan.from_json(pathlib.Path(sys.argv[2]).read_text())\n"
        "launch(pathlib.Path(sys.argv[1]), lambda _: plan, environ=os.environ, tied=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    starter = subprocess.run(
        [sys.executable, "-c", script, str(directory.root), str(plan)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert starter.returncode == -signal.SIGKILL, starter.stderr
    assert_nothing_left(directory)
    assert "the stack is ready" in directory.log("supervisor").read_text()
