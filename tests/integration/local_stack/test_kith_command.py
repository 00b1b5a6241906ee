"""The ``kith`` command as a person types it, over stacks of small real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.directory import StackDirectory
from deploy.local.plan import Plan
from deploy.local.services import ROOT
from deploy.local.stack import launch

from .stacks import assert_nothing_left, eventually, fake, plan_of, processes_of


def kith(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from deploy.local.cli import main; main()", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120
    )


def up_with(plan: Plan, directory: StackDirectory, *words: str) -> subprocess.Popen[str]:
    """``kith up`` with ``plan`` in place of the whole stack."""
    path = directory.root.with_name("plan.json")
    path.write_text(plan.to_json())
    script = (
        "import pathlib, sys\n"
        "from deploy.local import cli, plan, stack\n"
        "given = plan.Plan.from_json(pathlib.Path(sys.argv.pop(1)).read_text())\n"
        "stack.plan_stack = lambda *_: given\n"
        "cli.main()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path), "up", "--dir", str(directory.root), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_up_tells_what_it_waits_for_and_leaves_the_stack_running(directory: StackDirectory, base: int) -> None:
    plan = replace(
        plan_of(fake("store", base), fake("server", base + 1, after=("store",))),
        addresses={"server": f"127.0.0.1:{base + 1}"},
    )
    output, _ = (command := up_with(plan, directory)).communicate()
    assert command.returncode == 0, output
    told = [line.split()[2:] for line in output.splitlines() if " s  " in line]
    assert told.index(["store", "running"]) < told.index(["server", "starting"])
    assert f"grpcurl -plaintext 127.0.0.1:{base + 1} list" in output
    assert processes_of(directory)
    again, _ = (second := up_with(plan, directory)).communicate()
    assert second.returncode == 1
    assert f"a stack already runs in {directory.root}" in again
    assert kith("down", "--dir", str(directory.root)).returncode == 0
    assert_nothing_left(directory)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_in_the_foreground_ends_its_stack_with_itself(
    directory: StackDirectory, base: int, number: signal.Signals
) -> None:
    command = up_with(plan_of(fake("server", base)), directory, "--foreground")
    eventually(directory.stack.exists, "the stack is ready")
    assert command.stdout is not None
    while "kith down" not in command.stdout.readline():
        assert command.poll() is None
    command.send_signal(number)
    command.communicate()
    assert command.returncode == (0 if number is not signal.SIGKILL else -signal.SIGKILL)
    assert_nothing_left(directory)


def test_up_interrupted_while_it_waits_leaves_nothing(directory: StackDirectory, base: int) -> None:
    command = up_with(plan_of(fake("deaf", base, "--deaf")), directory)
    eventually(lambda: directory.log("deaf").exists(), "the process is started")
    command.send_signal(signal.SIGINT)
    output, _ = command.communicate()
    assert (command.returncode, "everything is stopped" in output) == (130, True), output
    assert_nothing_left(directory)


def test_status_and_down_of_a_healthy_stack(directory: StackDirectory, base: int) -> None:
    plan = plan_of(fake("store", base), fake("server", base + 1, after=("store",)))
    stack = launch(directory.root, lambda _: plan, environ=os.environ, tied=False)
    shown = kith("status", "--dir", str(directory.root))
    assert shown.returncode == 0, shown.stderr
    header, store, server = shown.stdout.splitlines()
    assert header.split() == ["PROCESS", "STATE", "PID", "PORTS", "UPTIME", "RSS", "MB", "RESTARTS", "HEALTH"]
    assert store.split()[:2] == ["store", "running"]
    assert server.split()[0] == "server"
    assert (server.split()[3], server.split()[-1]) == (f"tcp:{base + 1}", "ok")
    stopped = kith("down", "--dir", str(directory.root))
    assert stopped.returncode == 0
    assert f"stopped the stack in {directory.root}" in stopped.stdout
    assert_nothing_left(directory)
    assert stack.wait() == 0
    again = kith("down", "--dir", str(directory.root))
    assert (again.returncode, again.stdout) == (0, f"nothing runs in {directory.root}\n")


def test_status_fails_while_a_process_does_not_answer(directory: StackDirectory, base: int) -> None:
    with launch(directory.root, lambda _: plan_of(fake("server", base)), environ=os.environ) as stack:
        pid = json.loads(stack.directory.stack.read_text())["processes"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        # A stopped process still accepts as many as its backlog; they are used up first.
        waiting: list[socket.socket] = []
        try:
            eventually(lambda: _is_deaf(base, waiting), "the backlog is full")
            shown = kith("status", "--dir", str(directory.root), "--json")
        finally:
            os.kill(pid, signal.SIGCONT)
            for connection in waiting:
                connection.close()
        report = json.loads(shown.stdout)
        assert (shown.returncode, report["running"], report["healthy"]) == (1, True, False)
        assert "no answer" in report["processes"][0]["health"]


def _is_deaf(port: int, waiting: list[socket.socket]) -> bool:
    try:
        waiting.append(socket.create_connection(("127.0.0.1", port), timeout=0.2))
    except TimeoutError:
        return True
    return False


def test_status_of_nothing(directory: StackDirectory) -> None:
    shown = kith("status", "--dir", str(directory.root))
    assert (shown.returncode, shown.stderr) == (1, f"Error: nothing runs in {directory.root}\n")
    as_json = kith("status", "--dir", str(directory.root), "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["running"]) == (1, False)


def test_down_purges_a_stacks_directory_and_no_other(directory: StackDirectory, base: int, tmp_path: Path) -> None:
    launch(directory.root, lambda _: plan_of(fake("server", base)), environ=os.environ, tied=False)
    assert kith("down", "--purge", "--dir", str(directory.root)).returncode == 0
    assert not directory.root.exists()
    (tmp_path / "letters").touch()
    refused = kith("down", "--purge", "--dir", str(tmp_path))
    assert refused.returncode == 1
    assert "is no stack's directory" in refused.stderr
    assert (tmp_path / "letters").exists()


def test_up_names_the_port_in_use_and_the_pack_that_is_missing(directory: StackDirectory, base: int) -> None:
    words = ("up", "--dir", str(directory.root), "--port-base", str(base))
    with socket.create_server(("127.0.0.1", base + 10)):
        clash = kith(*words, "--pack", "buffalo_l")
    assert clash.returncode == 1
    assert f"Error: port {base + 10}, which detection rpc needs, cannot be used" in clash.stderr
    missing = kith(*words, "--pack", str(directory.root / "no pack"))
    assert (missing.returncode, missing.stderr) == (
        1,
        f"Error: there is no model pack at {directory.root}/no pack\n",
    )
    assert_nothing_left(directory)
