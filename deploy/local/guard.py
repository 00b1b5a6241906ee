"""The stack's topmost process: starts the supervisor and makes sure that nothing outlives it.

``python -m deploy.local.guard DIRECTORY LOCK TIE``. Children of the supervisor are tied to its life by the kernel
(``child.py``), but a signal at its death is only a request, and does not reach *their* children. The guard is the
subreaper of the whole tree: whatever loses its parent becomes its child. When the supervisor is gone, by itself or by
kill -9, it asks what is left to end, kills what does not, and only then ends too. If the guard itself is killed, the
supervisor is told by the kernel and stops the stack in order.

TIE is the number of a pipe's reading end, or -1: when the writing end closes, since whoever held it has ended, the
stack is stopped. A pipe, because a signal at the death of a parent would already come at the end of the *thread* that
started us.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from deploy.local.directory import Holder, StackDirectory, write_holders
from deploy.local.plan import Identity, Plan, child_argv

PR_SET_CHILD_SUBREAPER = 36
ORPHAN_POLL_S = 0.1


def become_subreaper() -> None:
    """Let orphans of this process's tree become its children. Linux only; elsewhere they go to process 1."""
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"PR_SET_CHILD_SUBREAPER: {os.strerror(error)}")


class SignalPipe:
    """Turns SIGCHLD, SIGTERM and SIGINT into bytes one can wait for together with other descriptors."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def drain(self) -> set[int]:
        """The signals that came since the last call."""
        try:
            return set(os.read(self.reader, 4096))
        except BlockingIOError:
            return set()


def wait_for_supervisor(supervisor: int, signals: SignalPipe, tie: int | None) -> int:
    """Reap every child until ``supervisor`` ends, and return its wait status; pass on SIGTERM when asked to stop."""
    waited = [signals.reader] if tie is None else [signals.reader, tie]
    while True:
        for pid, status in reap():
            if pid == supervisor:
                return status
        readable, _, _ = select.select(waited, [], [])
        stop = bool(signals.drain() & {signal.SIGTERM, signal.SIGINT})
        if tie in readable:
            waited.remove(tie)
            stop = True
        if stop:
            os.kill(supervisor, signal.SIGTERM)


def reap() -> list[tuple[int, int]]:
    """Collect all children that have ended: process number and wait status of each."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def end_orphans(signals: SignalPipe, grace_s: float) -> None:
    """End every child this process still has, and theirs as they are orphaned: asked first, killed after a grace."""
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while True:
        reap()
        # Only our own children: a PostgreSQL shutting down would take the end of its inner processes for a crash.
        orphans = psutil.Process().children()
        if not orphans:
            return
        late = time.monotonic() > deadline
        for orphan in orphans:
            if late:
                orphan.kill()
            elif orphan.pid not in asked:
                asked.add(orphan.pid)
                print(
                    f"ending {orphan.name()} (process {orphan.pid}), which outlived the supervisor",
                    file=sys.stderr,
                )
                orphan.terminate()
        select.select([signals.reader], [], [], ORPHAN_POLL_S)
        signals.drain()


def main(argv: Sequence[str]) -> int:
    root, lock, tie = argv[0], int(argv[1]), int(argv[2])
    directory = StackDirectory(Path(root))
    plan = Plan.from_json(directory.plan.read_text(encoding="utf-8"))
    become_subreaper()
    signals = SignalPipe()
    command = (sys.executable, "-P", "-m", "deploy.local.supervisor", root, str(lock))
    supervisor = subprocess.Popen(
        child_argv(command, parent=os.getpid(), death_signal=signal.SIGTERM, identity=Identity.SELF),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock,),
    )
    write_holders(lock, {"guard": Holder.of(os.getpid()), "supervisor": Holder.of(supervisor.pid)})
    status = wait_for_supervisor(supervisor.pid, signals, tie if tie >= 0 else None)
    supervisor.returncode = os.waitstatus_to_exitcode(status)
    end_orphans(signals, plan.orphan_grace_s)
    directory.stack.unlink(missing_ok=True)
    return supervisor.returncode if supervisor.returncode >= 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
