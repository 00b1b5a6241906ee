"""The stack's directory: what lies where, private files, and the lock that says whether a stack lives in it.

The lock is the one source of truth about liveness. It is an ``flock`` on one open file that the guard, the supervisor
and every child share, so the kernel itself releases it when the last of them is gone, however they went; process
numbers in files only say whom to signal.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

LOCK_POLL_S = 0.05
LOG_MAX_BYTES = 8 * 1024 * 1024
# The kernel tells its boot time in whole seconds, and may change its mind by one.
START_TOLERANCE_S = 2.0
_MAX_HOLDERS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class StackDirectory:
    """Paths below ``root``, which is absolute."""

    root: Path

    @staticmethod
    def at(path: Path) -> StackDirectory:
        return StackDirectory(path.expanduser().resolve())

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def stack(self) -> Path:
        return self.root / "stack.json"

    @property
    def peak_rss(self) -> Path:
        return self.root / "peak_rss.json"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def create(self) -> None:
        for path in (self.root, self.root / "logs", self.root / "secrets", self.scratch):
            path.mkdir(parents=True, exist_ok=True)
        (self.root / "secrets").chmod(0o700)

    def read_or_create_secret(self, name: str) -> str:
        """A random URL-safe password, made on first use and then always the same. The lock must be held."""
        path = self.root / "secrets" / name
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text(encoding="ascii")

    def open_log(self, name: str) -> int:
        """Open a log to append to, moving one that has grown large aside first (one old one is kept)."""
        path = self.log(name)
        if path.exists() and path.stat().st_size > LOG_MAX_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` at once with ``text``, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process by number and start (seconds after boot), so that a number used again is not mistaken for it."""

    pid: int
    started: float

    @staticmethod
    def of(pid: int) -> Holder:
        return Holder(pid, _started_after_boot(psutil.Process(pid)))

    def process(self) -> psutil.Process | None:
        """The process, or None if it is gone (a zombie is)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(_started_after_boot(process) - self.started) < START_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def _started_after_boot(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()


def acquire_lock(path: Path, *, timeout_s: float = 0.0) -> int | None:
    """Take the lock and return its descriptor (hand it to children, or close it), or None if it stayed taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(LOCK_POLL_S)


def is_locked(path: Path) -> bool:
    """Whether any process of a stack lives in the directory."""
    if not path.exists():
        return False
    descriptor = acquire_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def write_holders(descriptor: int, holders: dict[str, Holder]) -> None:
    """Note in the lock file, by its descriptor, whom to signal: ``guard`` and ``supervisor``."""
    text = json.dumps({role: [holder.pid, holder.started] for role, holder in holders.items()})
    os.pwrite(descriptor, text.encode().ljust(_MAX_HOLDERS_BYTES), 0)


def read_holders(path: Path) -> dict[str, Holder]:
    """What :func:`write_holders` noted; empty before it did."""
    text = path.read_text(encoding="utf-8").strip()
    return {role: Holder(int(pid), float(started)) for role, (pid, started) in json.loads(text or "{}").items()}
