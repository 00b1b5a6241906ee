"""Stopping whatever runs in a directory, known only by what lies there."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import psutil

from deploy.local.directory import LOCK_POLL_S, StackDirectory, is_locked, read_holders
from deploy.local.errors import StackError

# All drains and shutdowns together, services first and then the stores, with room to spare.
STOP_TIMEOUT_S = 90.0
KILL_TIMEOUT_S = 10.0


def stop_stack(directory: StackDirectory, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Stop the stack in order and wait until its last process is gone; False if none ran.

    After ``timeout_s`` everything left is killed. Raises ``StackError`` if even that does not end it.
    """
    if not is_locked(directory.lock):
        return False
    if not _ask_to_stop(directory, timeout_s) and not _kill(directory):
        raise StackError(f"processes of the stack in {directory.root} could not be ended; they hold {directory.lock}")
    directory.stack.unlink(missing_ok=True)
    return True


def _ask_to_stop(directory: StackDirectory, timeout_s: float) -> bool:
    asked = False
    deadline = time.monotonic() + timeout_s
    while is_locked(directory.lock):
        if time.monotonic() > deadline:
            return False
        # A stack that is just being started has not noted them yet.
        supervisor = read_holders(directory.lock).get("supervisor")
        process = supervisor.process() if supervisor is not None else None
        if process is not None and not asked:
            process.send_signal(signal.SIGTERM)
            asked = True
        time.sleep(LOCK_POLL_S)
    return True


def _kill(directory: StackDirectory) -> bool:
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while is_locked(directory.lock):
        if time.monotonic() > deadline:
            return False
        for process in list(_find_processes(directory)):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(LOCK_POLL_S)
    return True


def _find_processes(directory: StackDirectory) -> Iterator[psutil.Process]:
    """Everything that has the lock's file open, which makes it part of the stack."""
    for process in psutil.process_iter():
        try:
            if any(file.path == str(directory.lock) for file in process.open_files()):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
