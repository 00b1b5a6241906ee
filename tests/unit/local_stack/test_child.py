"""The step between fork and exec: life tied to the parent, another identity, signals as they should be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.plan import CHILD, Identity, child_argv

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")


@linux
def test_a_child_gets_its_signal_when_its_parent_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "said"
    os.mkfifo(said)
    # The child says that it lives, then what ended it; the fifo's end of file says that it is gone.
    child = (
        "import os, signal, sys\n"
        "out = open(sys.argv[1], 'w', buffering=1)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "print('alive', file=out)\n"
        "print(signal.sigwait({signal.SIGINT}).name, file=out)\n"
    )
    parent = (
        "import os, subprocess, sys\n"
        f"argv = [sys.executable, '-I', '-S', {str(CHILD)!r}, '--parent', str(os.getpid()), '--death-signal', '2']\n"
        f"subprocess.run([*argv, '--', sys.executable, '-I', '-c', {child!r}, {str(said)!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-I", "-c", parent])
    with said.open() as lines:
        assert lines.readline() == "alive\n"
        process.kill()
        assert lines.read() == "SIGINT\n"
    process.wait()


@linux
def test_a_child_whose_parent_is_gone_does_not_start() -> None:
    argv = child_argv(("echo", "started"), parent=1, death_signal=signal.SIGTERM, identity=Identity.SELF)
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "process 1, died before" in done.stderr


def test_a_child_is_executed_in_place_with_its_arguments() -> None:
    look = "import os, sys; print(os.getpid(), sys.argv[1:])"
    argv = child_argv(
        (sys.executable, "-I", "-c", look, "--uid", "a b"),
        parent=None,
        death_signal=0,
        identity=Identity.SELF,
    )
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate()
    assert output == f"{process.pid} ['--uid', 'a b']\n"


def test_a_broken_pipe_ends_a_child() -> None:
    yes = child_argv(("yes",), parent=os.getpid(), death_signal=signal.SIGTERM, identity=Identity.SELF)
    process = subprocess.Popen(yes, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait() == -signal.SIGPIPE


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its identity")
@pytest.mark.parametrize(("identity", "uid"), [(Identity.NAMESPACE, "1000"), (Identity.NOBODY, "65534")])
def test_root_becomes_somebody_else(identity: Identity, uid: str) -> None:
    argv = child_argv(("id", "-u"), parent=os.getpid(), death_signal=signal.SIGTERM, identity=identity)
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    if identity is Identity.NAMESPACE and "unshare: " in done.stderr:
        pytest.skip("user namespaces are forbidden here")
    assert (done.returncode, done.stdout.strip()) == (0, uid), done.stderr
