"""The services whose part finding people is, each in a process of its own, over stores that are there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.rows import ROOT
from deploy.local.plan import GrpcServes
from deploy.local.ports import SERVICES, StackPorts, address
from deploy.local.readiness import NotReadyError, check_ready

PEOPLE: Final = ("persons.server", "persons.worker", "clustering.worker")
"""Who name people, and keep what they are recognised by."""

EVERYBODY: Final = (*PEOPLE, "suggestions.server", "suggestions.worker")
QDRANT_TIMEOUT_S: Final = 300.0
"""The embedded Qdrant compares with every face there is: a batch of searches in a million takes a while."""

POLL_S: Final = 0.25
LOG_CHARACTERS: Final = 2_000


def make_environment(stores: Mapping[str, str], ports: StackPorts, folder: Path) -> dict[str, str]:
    """Variables of every process: where the stores and the other services are."""
    return {
        **stores,
        **{f"KITH_SERVICES_{service.upper()}": address(ports.rpc(service)) for service in SERVICES},
        "KITH_QDRANT_TIMEOUT_S": str(QDRANT_TIMEOUT_S),
        # Nobody but the bench starts a job, so that it knows what it measures.
        "KITH_SUGGESTIONS_AUTO_FIND_MORE_AFTER": "0",
        "KITH_DATA_DIR": str(folder / "data"),
    }


@asynccontextmanager
async def running(
    processes: Sequence[str], stores: Mapping[str, str], ports: StackPorts, folder: Path
) -> AsyncIterator[None]:
    """These processes (``persons.server``), ready, until the end of the block; what they log is in ``folder``.

    Raises ``RuntimeError`` if one ends before it is ready.
    """
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for process in processes:
            started[process] = _start(process, make_environment(stores, ports, folder), ports, folder)
        for process, child in started.items():
            await _await_ready(process, child, ports, folder)
        yield
    finally:
        for child in started.values():
            child.terminate()
        for child in started.values():
            await asyncio.to_thread(child.wait)


async def _await_ready(process: str, child: subprocess.Popen[bytes], ports: StackPorts, folder: Path) -> None:
    while True:
        if child.poll() is not None:
            log = (folder / f"{process}.log").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{process} ended: {log[-LOG_CHARACTERS:]}")
        try:
            return await check_ready(GrpcServes(address(_health_port(process, ports))))
        except NotReadyError:
            await asyncio.sleep(POLL_S)


def _health_port(process: str, ports: StackPorts) -> int:
    service, _, kind = process.partition(".")
    return ports.worker_health(service) if kind == "worker" else ports.health(service)


def _start(process: str, variables: Mapping[str, str], ports: StackPorts, folder: Path) -> subprocess.Popen[bytes]:
    service, _, kind = process.partition(".")
    env = {
        **os.environ,
        **variables,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "shared" / "gen"))),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "KITH_RPC_PORT": str(0 if kind == "worker" else ports.rpc(service)),
        "KITH_RPC_HEALTH_PORT": str(_health_port(process, ports)),
    }
    command = [sys.executable, "-P", "-m", f"services.{process}"]
    with (folder / f"{process}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
