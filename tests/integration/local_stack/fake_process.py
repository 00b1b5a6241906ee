"""A small process to supervise: listens on a port and ends at SIGTERM.

``NAME PORT [--journal FILE] [--child] [--escaped-child] [--stubborn] [--fail TEXT] [--deaf]``: writes ``start NAME``
and ``stop NAME`` to FILE; has a child process in its own group, or in a session of its own, that ignores SIGTERM;
ignores SIGTERM itself; exits with status 3 after writing TEXT; never listens.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("port", type=int)
parser.add_argument("--journal", type=Path)
parser.add_argument("--child", action="store_true")
parser.add_argument("--escaped-child", action="store_true")
parser.add_argument("--stubborn", action="store_true")
parser.add_argument("--deaf", action="store_true")
parser.add_argument("--fail")
options = parser.parse_args()


def note(event: str) -> None:
    if options.journal:
        with options.journal.open("a") as journal:
            journal.write(f"{event} {options.name}\n")


if options.fail:
    sys.stdout.write(f"{options.fail}\n")
    sys.exit(3)
stopped = threading.Event()
signal.signal(signal.SIGTERM, signal.SIG_IGN if options.stubborn else lambda *_: stopped.set())
# Its output goes to the log in the stack's directory, by which the tests find it.
sleeper = [
    sys.executable,
    "-I",
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)",
]
if options.child:
    subprocess.Popen(sleeper)
if options.escaped_child:
    subprocess.Popen(sleeper, start_new_session=True)
note("start")
if not options.deaf:
    listener = socket.create_server(("127.0.0.1", options.port), backlog=8)
while not stopped.wait(0.05):
    pass
note("stop")
