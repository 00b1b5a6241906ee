"""The Qdrant under test: the embedded one as a child process, or a server; and clients for both."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qdrant_client import AsyncQdrantClient, QdrantClient

REPOSITORY = Path(__file__).parents[3]
PORTS = range(41000, 41100)


@dataclass(frozen=True, slots=True)
class Target:
    """A Qdrant to test: where its gRPC answers, and how to get in."""

    host: str
    port: int
    https: bool = False
    api_key: str | None = None

    @classmethod
    def of_url(cls, url: str, api_key: str | None) -> Target:
        """The Qdrant at `url`, whose port is the gRPC port."""
        server = urlsplit(url)
        return cls(server.hostname or "127.0.0.1", server.port or 6334, server.scheme == "https", api_key)

    def connect(self) -> AsyncQdrantClient:
        """A client as the services make it."""
        return AsyncQdrantClient(**self._options())

    def connect_blocking(self) -> QdrantClient:
        """The same for fixtures that outlive one event loop."""
        return QdrantClient(**self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "grpc_port": self.port,
            "https": self.https,
            "api_key": self.api_key,
            "prefer_grpc": True,
            "check_compatibility": False,
            # Or a client of a restarted process would wait out the back-off of the clients of the dead one.
            "grpc_options": {"grpc.use_local_subchannel_pool": 1},
        }


@dataclass(frozen=True, slots=True)
class EmbeddedQdrant:
    """A child process that has printed "ready"."""

    process: subprocess.Popen[str]
    port: int

    def target(self) -> Target:
        """Where it answers."""
        return Target("127.0.0.1", self.port)

    def client(self) -> AsyncQdrantClient:
        """A client for it."""
        return self.target().connect()

    def kill(self) -> None:
        """kill -9: no flush, no goodbye."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait()


def launch(folder: Path, port: int) -> subprocess.Popen[str]:
    """Start the process without waiting for it to serve."""
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.local.qdrant", "--data", str(folder), "--port", str(port)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(folder: Path) -> EmbeddedQdrant:
    """Start the process on a free port and wait until it serves."""
    port = free_port()
    process = launch(folder, port)
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "ready\n":
        process.kill()
        _, complaint = process.communicate()
        raise AssertionError(f"the embedded Qdrant said {line!r} and: {complaint}")
    return EmbeddedQdrant(process, port)


def refusal(folder: Path, port: int) -> str:
    """Start a process that must not serve; what it said on stderr before it ended with status 1."""
    process = launch(folder, port)
    assert process.stdout is not None
    if line := process.stdout.readline():
        process.kill()
    _, complaint = process.communicate()
    assert (line, process.returncode) == ("", 1), complaint
    return complaint


def random_prefix() -> str:
    """A start of names that no other test has, also on a shared server."""
    return f"test_{uuid.uuid4().hex}_"


def free_port() -> int:
    """A port nobody listens on; processes that test at the same time look from different places."""
    for step in range(len(PORTS)):
        port = PORTS[(os.getpid() + step) % len(PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port in {PORTS}")
