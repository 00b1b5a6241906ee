"""The persons service in processes of its own, over stores that are there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.rows import ROOT
from deploy.local.ports import StackPorts


@contextmanager
def running_server(stores: Mapping[str, str], ports: StackPorts, folder: Path) -> Iterator[str]:
    """The server; answers where it will listen."""
    with _running("server", stores, ports.rpc("persons"), ports.health("persons"), folder):
        yield f"127.0.0.1:{ports.rpc('persons')}"


@contextmanager
def running_worker(stores: Mapping[str, str], ports: StackPorts, folder: Path) -> Iterator[None]:
    """The worker, whose relay brings to Qdrant what the server queues."""
    with _running("worker", stores, ports.rpc("persons"), ports.worker_health("persons"), folder):
        yield


@contextmanager
def _running(what: str, stores: Mapping[str, str], rpc: int, health: int, folder: Path) -> Iterator[None]:
    env = {
        **os.environ,
        **stores,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "shared" / "gen"))),
        "OMP_NUM_THREADS": "1",
        "KITH_RPC_PORT": str(rpc),
        "KITH_RPC_HEALTH_PORT": str(health),
    }
    command = [sys.executable, "-P", "-m", f"services.persons.{what}"]
    with (folder / f"{what}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait()
