"""Order, restarts, refusals and failures of a supervised stack."""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy.local.directory import StackDirectory
from deploy.local.errors import PortInUseError, StackRunningError, StartFailedError
from deploy.local.plan import Plan
from deploy.local.stack import RunningStack, launch
from deploy.local.stopping import stop_stack

from .stacks import PATIENCE, assert_nothing_left, eventually, fake, plan_of, processes_of


def start(directory: StackDirectory, plan: Plan, *, tied: bool = True) -> RunningStack:
    return launch(directory.root, lambda _: plan, environ=os.environ, tied=tied)


def read_process(stack: RunningStack, name: str) -> dict[str, object]:
    rows = json.loads(stack.directory.stack.read_text())["processes"]
    return next(row for row in rows if row["name"] == name)


def test_processes_start_after_what_they_need_and_stop_before_it(directory: StackDirectory, base: int) -> None:
    directory.create()
    journal = ("--journal", str(directory.root / "journal"))
    store = fake("store", base, *journal)
    server = fake("server", base + 1, *journal, after=("store",))
    client = fake("client", base + 2, *journal, after=("server",))
    start(directory, plan_of(client, server, store)).stop()
    assert Path(journal[1]).read_text().splitlines() == [
        *("start store", "start server", "start client"),
        *("stop client", "stop server", "stop store"),
    ]
    assert_nothing_left(directory)


def test_a_killed_process_is_started_again_with_what_it_left_behind_ended(directory: StackDirectory, base: int) -> None:
    with start(directory, plan_of(fake("server", base, "--child"), fake("other", base + 1))) as stack:
        before, other = read_process(stack, "server"), read_process(stack, "other")
        child = psutil.Process(int(str(before["pid"]))).children()[0]
        os.kill(int(str(before["pid"])), signal.SIGKILL)
        eventually(lambda: read_process(stack, "server")["restarts"] == 1, "stack.json tells of the restart")
        eventually(lambda: read_process(stack, "server")["pid"] is not None, "it runs again")
        assert read_process(stack, "server")["pid"] != before["pid"]
        assert read_process(stack, "other") == other
        eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "its child ends")
    assert_nothing_left(directory)


def test_a_process_that_dies_at_start_fails_it_with_its_last_words(directory: StackDirectory, base: int) -> None:
    plan = plan_of(fake("fine", base), fake("broken", base + 1, "--fail", "the disk is on fire"))
    with pytest.raises(StartFailedError) as failure:
        start(directory, plan)
    message = str(failure.value)
    assert "broken does not start: it exited with status 3" in message
    assert "the disk is on fire" in message
    assert str(directory.log("broken")) in message
    assert directory.log("broken").read_text().count("the disk is on fire") == PATIENCE.start_attempts
    assert_nothing_left(directory)


def test_a_process_that_is_never_ready_fails_the_start(directory: StackDirectory, base: int) -> None:
    plan = plan_of(fake("deaf", base, "--deaf"))
    impatient = replace(plan, restarts=replace(PATIENCE, ready_timeout_s=0.3))
    with pytest.raises(StartFailedError, match=r"deaf does not start: not ready after 0\.3 s .*Connection refused"):
        start(directory, impatient)
    assert_nothing_left(directory)


def test_a_stubborn_process_is_killed_after_its_grace(directory: StackDirectory, base: int) -> None:
    start(directory, plan_of(fake("stubborn", base, "--stubborn", "--child", grace_s=0.2))).stop()
    assert "did not end within 0.2 s" in directory.log("supervisor").read_text()
    assert_nothing_left(directory)


def test_a_port_in_use_is_named_with_what_wants_it_before_anything_starts(directory: StackDirectory, base: int) -> None:
    with socket.create_server(("127.0.0.1", base + 1)), pytest.raises(PortInUseError) as refusal:
        start(directory, plan_of(fake("store", base), fake("server", base + 1)))
    assert f"port {base + 1}, which server tcp needs, cannot be used" in str(refusal.value)
    assert f"process {os.getpid()}" in str(refusal.value)
    assert str(base) not in str(refusal.value).replace(str(base + 1), "")
    assert not directory.log("store").exists()
    assert_nothing_left(directory)


def test_a_port_wanted_twice_is_refused(directory: StackDirectory, base: int) -> None:
    with pytest.raises(PortInUseError, match="wanted by both one tcp and two tcp"):
        start(directory, plan_of(fake("one", base), fake("two", base)))


def test_a_directory_holds_one_stack_and_two_directories_two(directory: StackDirectory, base: int) -> None:
    neighbour = StackDirectory(directory.root.with_name("neighbour"))
    with start(directory, plan_of(fake("one", base))):
        with pytest.raises(StackRunningError, match=f"already runs in {directory.root}"):
            start(directory, plan_of(fake("two", base + 1)))
        with start(neighbour, plan_of(fake("two", base + 1))):
            assert stop_stack(directory)
            assert_nothing_left(directory)
            assert processes_of(neighbour)
        assert_nothing_left(neighbour)


def test_memory_peaks_are_kept_after_the_end(directory: StackDirectory, base: int) -> None:
    with start(directory, plan_of(fake("server", base))):
        eventually(lambda: directory.peak_rss.exists(), "the first sample is written")
    assert 1 < json.loads(directory.peak_rss.read_text())["server"] < 200


def test_what_clients_read_is_private(directory: StackDirectory, base: int) -> None:
    with start(directory, plan_of(fake("server", base))):
        for path in (directory.stack, directory.state, directory.plan, directory.log("server")):
            assert path.stat().st_mode & 0o777 == 0o600, path
