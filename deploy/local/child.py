"""Becomes one child of the stack: takes on its identity, ties its life to its parent's, and executes it.

Run by path with ``python -I -S`` (about 15 ms, no site-packages), because these steps must happen between fork and exec
and are neither safe in a ``preexec_fn`` nor possible before it:

- ``--user-namespace``: PostgreSQL refuses uid 0. Root becomes uid 1000 of a user namespace of its own, in which the
  files of the real root belong to it, so neither a system user nor a change of owners is needed.
- ``--uid``: where such namespaces are forbidden, a plain unprivileged user.
- ``PR_SET_PDEATHSIG``: the kernel sends the signal when the parent dies, however it dies. It is set last, since a
  change of credentials clears it, and is followed by a look at the parent, which may have died before. The signal is
  tied to the parent's *thread*: parents start children from their main thread only.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
NAMESPACE_ID = 1000


def _call_libc(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def enter_user_namespace() -> None:
    """Make this process uid and gid 1000 of a new user namespace. Raises ``OSError`` where that is forbidden."""
    uid, gid = os.geteuid(), os.getegid()
    _call_libc("unshare", CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{NAMESPACE_ID} {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{NAMESPACE_ID} {gid} 1", encoding="ascii")


def become_user(uid: int) -> None:
    """Drop root for ``uid`` and the group of the same number. Raises ``OSError`` if that is not allowed."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def die_with_parent(parent: int, death_signal: int) -> None:
    """Ask for ``death_signal`` when process ``parent`` dies; exit now if it already has. Does nothing outside Linux."""
    if sys.platform != "linux":
        return
    _call_libc("prctl", PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(f"the parent, process {parent}, died before this child could start")


def main(argv: Sequence[str]) -> None:
    """Parse the command line and execute what follows ``--``; returns only by raising."""
    parser = argparse.ArgumentParser(prog="child", description=__doc__)
    parser.add_argument("--parent", type=int, help="process whose death ends this one")
    parser.add_argument("--death-signal", type=int, default=int(signal.SIGTERM))
    identity = parser.add_mutually_exclusive_group()
    identity.add_argument("--user-namespace", action="store_true")
    identity.add_argument("--uid", type=int)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    if options.user_namespace:
        enter_user_namespace()
    if options.uid is not None:
        become_user(options.uid)
    if options.parent is not None:
        die_with_parent(options.parent, options.death_signal)
    # Python ignores this at start-up and ignored signals survive exec; the child expects the default.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvpe(options.command[0], options.command, os.environ)


if __name__ == "__main__":
    main(sys.argv[1:])
