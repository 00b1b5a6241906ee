"""Starting and stopping a stack from Python; ``kith up``, the demo and the tests all come through here.

    with start_stack(StackOptions(directory=Path("d"), port_base=0)) as stack:
        channel = grpc.insecure_channel(stack.addresses["detection"])

These functions block (start about as long as the slowest process, stop as long as it drains); call them from a thread
where that matters, any thread will do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.directory import StackDirectory, acquire_lock, read_holders, write_private
from deploy.local.errors import StackRunningError, StartFailedError
from deploy.local.plan import Plan, ProcessSpec, RestartPolicy
from deploy.local.ports import FREE_RANGE, StackPorts, address, check_ports_free, find_free_base
from deploy.local.postgres import database_dsn, plan_postgres
from deploy.local.process import TAIL_LINES
from deploy.local.services import (
    ROOT,
    build_environment,
    plan_migrate,
    plan_next_detection,
    plan_prepare,
    plan_services,
)
from deploy.local.stopping import stop_stack
from deploy.local.supervisor import StackState
from deploy.local.valkey import plan_valkey, redis_url
from deploy.local.vector_store import GIVEN, plan_qdrant, qdrant_url

DEFAULT_PORT_BASE = 50050
# How long the remains of a stack whose supervisor died may take to end before a new one is refused.
PREVIOUS_END_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What to start.

    ``port_base`` 0 takes a free block from ``free_ports``. ``pack`` is a model pack's name or folder (default: the one
    in ``demo/pack``), ``next_pack`` one that a second detection server is to run; ``photos`` are the folders ``file:``
    uris may point into. ``fsync`` False trades durability against a power cut for speed. ``environ`` is what the processes
    inherit.
    """

    directory: Path = Path(".kith")
    port_base: int = DEFAULT_PORT_BASE
    pack: str | None = None
    next_pack: str | None = None
    photos: tuple[Path, ...] = ()
    fsync: bool = True
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    free_ports: range = FREE_RANGE
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


class RunningStack:
    """A stack that is ready. As a context manager it stops at the end."""

    def __init__(self, directory: StackDirectory, plan: Plan, guard: subprocess.Popen[bytes], tie: int | None) -> None:
        self.directory = directory
        self.plan = plan
        self._guard = guard
        self._tie = tie

    @property
    def dir(self) -> Path:
        return self.directory.root

    @property
    def addresses(self) -> Mapping[str, str]:
        """gRPC targets by service."""
        return self.plan.addresses

    @property
    def env(self) -> Mapping[str, str]:
        """The KITH_ variables with which another process uses this stack."""
        return self.plan.env

    def is_running(self) -> bool:
        return self._guard.poll() is None

    def wait(self) -> int:
        """Block until the stack has ended, and return the guard's exit status."""
        return self._guard.wait()

    def stop(self) -> None:
        """Stop everything and wait until it is gone; again is nothing."""
        stop_stack(self.directory)
        self._guard.wait()
        if self._tie is not None:
            os.close(self._tie)
            self._tie = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def start_stack(
    options: StackOptions, *, tied: bool = True, report: Callable[[StackState], None] | None = None
) -> RunningStack:
    """Start stores, migrations, servers and workers, and return when all are ready.

    A ``tied`` stack is stopped when this process ends, however it ends; one that is not runs until :func:`stop_stack`.
    ``report`` is called with each new state while waiting. Raises ``PortInUseError``, ``StackRunningError``,
    ``StartFailedError`` or another ``StackError``; after an error nothing of it runs.
    """

    def build(directory: StackDirectory) -> Plan:
        return plan_stack(options, directory, StackPorts(options.port_base or find_free_base(options.free_ports)))

    return launch(options.directory, build, environ=options.environ, tied=tied, report=report)


def start_stores(
    directory: Path,
    *,
    port_base: int = 0,
    fsync: bool = False,
    tied: bool = True,
    environ: Mapping[str, str] | None = None,
    free_ports: range = FREE_RANGE,
) -> RunningStack:
    """PostgreSQL, Valkey and Qdrant alone, without migrations: for tests. Errors as :func:`start_stack`."""
    inherited = dict(os.environ) if environ is None else environ

    def build(made: StackDirectory) -> Plan:
        ports = StackPorts(port_base or find_free_base(free_ports))
        processes, stores = plan_stores(made, ports, fsync=fsync, environ=inherited)
        return Plan(
            processes=processes,
            port_base=ports.base,
            env=stores,
            database_url=stores["KITH_DATABASE_URL"],
            redis_url=stores["KITH_REDIS_URL"],
            qdrant_url=stores[GIVEN],
        )

    return launch(directory, build, environ=inherited, tied=tied)


def plan_stores(
    directory: StackDirectory, ports: StackPorts, *, fsync: bool, environ: Mapping[str, str]
) -> tuple[tuple[ProcessSpec, ...], dict[str, str]]:
    """The stores' processes, and the variables that say where they are. The directory's lock must be held."""
    processes = [
        *plan_postgres(directory, port=ports.postgres, fsync=fsync),
        plan_valkey(directory, port=ports.valkey),
    ]
    if (given := environ.get(GIVEN)) is None:
        processes.append(plan_qdrant(directory, grpc_port=ports.qdrant_grpc, http_port=ports.qdrant_http))
    dsn = database_dsn(directory, ports.postgres)
    variables = {
        "KITH_DATABASE_URL": dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
        "KITH_REDIS_URL": redis_url(directory, ports.valkey),
        GIVEN: given or qdrant_url(ports.qdrant_grpc),
    }
    return tuple(processes), variables


def plan_stack(options: StackOptions, directory: StackDirectory, ports: StackPorts) -> Plan:
    """The whole stack as data. The directory's lock must be held."""
    environ = options.environ
    stores, variables = plan_stores(directory, ports, fsync=options.fsync, environ=environ)
    env = build_environment(
        environ,
        directory=directory,
        ports=ports,
        pack=options.pack,
        photos=options.photos,
        stores=variables,
        next_pack=options.next_pack,
    )
    migrate = plan_migrate(env, after=tuple(store.name for store in stores))
    prepare = plan_prepare(env, after=(migrate.name,))
    services = plan_services(env, environ, ports=ports, after=(prepare.name,))
    if options.next_pack is not None:
        services += plan_next_detection(env, environ, pack=options.next_pack, ports=ports, after=(migrate.name,))

    def collect(use: str) -> dict[str, str]:
        return {spec.name: address(p.number) for spec in services for p in spec.ports if p.use == use}

    return Plan(
        processes=(*stores, migrate, prepare, *services),
        port_base=ports.base,
        env=env,
        addresses=collect("rpc"),
        health=collect("health"),
        metrics=collect("metrics"),
        database_url=variables["KITH_DATABASE_URL"],
        redis_url=variables["KITH_REDIS_URL"],
        qdrant_url=variables[GIVEN],
        restarts=options.restarts,
    )


def launch(
    path: Path,
    build: Callable[[StackDirectory], Plan],
    *,
    environ: Mapping[str, str],
    tied: bool = True,
    report: Callable[[StackState], None] | None = None,
) -> RunningStack:
    """Take the directory, build the plan in it, start it under a guard and wait until it is ready."""
    directory = StackDirectory.at(path)
    directory.create()
    lock = _take_lock(directory)
    try:
        plan = build(directory)
        plan.layers()
        check_ports_free(plan.processes)
        write_private(directory.plan, plan.to_json())
        for stale in (directory.stack, directory.state, directory.peak_rss):
            stale.unlink(missing_ok=True)
        guard, tie = _start_guard(directory, lock, environ, tied=tied)
    finally:
        # From here on the guard and its tree hold the lock.
        os.close(lock)
    stack = RunningStack(directory, plan, guard, tie)
    try:
        _wait_ready(stack, report)
    except BaseException:
        stack.stop()
        raise
    return stack


def _take_lock(directory: StackDirectory) -> int:
    deadline = time.monotonic() + PREVIOUS_END_S
    while (lock := acquire_lock(directory.lock, timeout_s=POLL_S)) is None:
        supervisor = read_holders(directory.lock).get("supervisor")
        if supervisor is not None and supervisor.process() is not None:
            raise StackRunningError(f"a stack already runs in {directory.root} (supervisor: process {supervisor.pid})")
        if time.monotonic() > deadline:
            raise StackRunningError(f"the remains of a stack in {directory.root} do not end; kith down ends them")
    os.ftruncate(lock, 0)
    return lock


def _start_guard(
    directory: StackDirectory, lock: int, environ: Mapping[str, str], *, tied: bool
) -> tuple[subprocess.Popen[bytes], int | None]:
    read_end, write_end = os.pipe() if tied else (-1, None)
    output = directory.open_log("supervisor")
    try:
        guard = subprocess.Popen(
            [sys.executable, "-P", "-m", "deploy.local.guard", str(directory.root), str(lock), str(read_end)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_python_environment(environ),
            start_new_session=True,
            pass_fds=(lock, read_end) if tied else (lock,),
        )
    except BaseException:
        if write_end is not None:
            os.close(write_end)
        raise
    finally:
        os.close(output)
        if tied:
            os.close(read_end)
    return guard, write_end


def _python_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The processes find this very code wherever they are started; their logs are not held back in buffers."""
    paths = [str(ROOT), str(ROOT / "shared" / "gen"), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _wait_ready(stack: RunningStack, report: Callable[[StackState], None] | None) -> None:
    directory = stack.directory
    seen: StackState | None = None
    while True:
        ended = not stack.is_running()
        if directory.state.exists():
            state = StackState.from_json(directory.state.read_text(encoding="utf-8"))
            if report is not None and state != seen:
                report(state)
            seen = state
        if ended:
            raise StartFailedError((seen.failure if seen else None) or _describe_end(directory))
        if seen is not None and seen.ready:
            return
        time.sleep(POLL_S)


def _describe_end(directory: StackDirectory) -> str:
    path = directory.log("supervisor")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "the supervisor ended\n" + "\n".join(f"  | {line}" for line in lines) + f"\nthe whole log: {path}"
