"""The directory's lock, its private files, and how status is written for people."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.directory import (
    LOG_MAX_BYTES,
    Holder,
    StackDirectory,
    acquire_lock,
    is_locked,
    read_holders,
    write_holders,
    write_private,
)
from deploy.local.memory import measure_resident_mb
from deploy.local.plan import Port, ProcessSpec, TcpListens
from deploy.local.ports import check_ports_free, find_free_base
from deploy.local.process import State
from deploy.local.status import ProcessStatus, format_seconds, format_status


def test_the_lock_lives_as_long_as_the_last_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    descriptor = acquire_lock(path)
    assert descriptor is not None
    assert acquire_lock(path) is None
    heir = subprocess.Popen(
        [sys.executable, "-I", "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=(descriptor,),
    )
    os.close(descriptor)
    assert is_locked(path)
    heir.communicate()
    assert not is_locked(path)


def test_a_number_used_again_is_not_taken_for_its_former_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    descriptor = acquire_lock(path)
    assert descriptor is not None
    me = Holder.of(os.getpid())
    assert read_holders(path) == {}
    write_holders(descriptor, {"guard": me, "supervisor": Holder(me.pid, me.started - 60.0)})
    holders = read_holders(path)
    guard = holders["guard"].process()
    assert guard is not None
    assert guard.pid == os.getpid()
    assert holders["supervisor"].process() is None
    os.close(descriptor)


def test_a_secret_is_random_stays_and_is_private(tmp_path: Path) -> None:
    one, two = StackDirectory(tmp_path / "one"), StackDirectory(tmp_path / "two")
    one.create()
    two.create()
    secret = one.read_or_create_secret("postgres")
    assert one.read_or_create_secret("postgres") == secret
    assert two.read_or_create_secret("postgres") != secret
    assert len(secret) >= 32
    assert (one.root / "secrets" / "postgres").stat().st_mode & 0o777 == 0o600


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    write_private(path, "a long first version")
    write_private(path, "second")
    assert path.read_text() == "second"
    assert os.listdir(tmp_path) == ["stack.json"]


def test_a_large_log_is_moved_aside_at_start(tmp_path: Path) -> None:
    directory = StackDirectory(tmp_path)
    directory.create()
    with directory.log("server").open("wb") as file:
        file.truncate(LOG_MAX_BYTES + 1)
    os.close(directory.open_log("server"))
    assert directory.log("server").stat().st_size == 0
    assert (tmp_path / "logs" / "server.log.1").stat().st_size == LOG_MAX_BYTES + 1
    os.write(kept := directory.open_log("server"), b"kept")
    os.close(kept)
    os.close(directory.open_log("server"))
    assert directory.log("server").read_bytes() == b"kept"


def test_a_block_found_free_can_be_taken(free_range: range) -> None:
    base = find_free_base(free_range)
    ports = (Port("a", base), Port("b", base + 46))
    spec = ProcessSpec(name="one", argv=("true",), ready=TcpListens(f"127.0.0.1:{base}"), ports=ports)
    check_ports_free([spec])


@pytest.fixture
def free_range() -> range:
    first, last = os.environ.get("KITH_TEST_PORTS", "20000-31999").split("-")
    return range(int(first), int(last) + 1)


def test_memory_counts_descendants_and_leaves_out_the_dead() -> None:
    hold = "import sys; data = bytearray(32 << 20); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-I", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with_child = measure_resident_mb({"me": os.getpid(), "child": child.pid})
    assert with_child["child"] > 32
    child.communicate()
    alone = measure_resident_mb({"me": os.getpid(), "child": child.pid})
    assert "child" not in alone
    assert with_child["me"] - alone["me"] > 30


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (42, "42s"), (185, "3m05s"), (7380, "2h03m")])
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_status_is_a_table() -> None:
    rows = [
        ProcessStatus("postgres", State.RUNNING, 12, {"sql": 50050}, 61.0, 28.4, 0, "ok", "/l"),
        ProcessStatus("detection", State.RESTARTING, None, {}, 0.0, 0.0, 3, "it exited with status 1", "/l"),
    ]
    assert format_status(rows).splitlines() == [
        "PROCESS    STATE       PID  PORTS      UPTIME  RSS MB  RESTARTS  HEALTH",
        "postgres   running     12   sql:50050  1m01s   28      0         ok",
        "detection  restarting  -               0s      0       3         it exited with status 1",
    ]
