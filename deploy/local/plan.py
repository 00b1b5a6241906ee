"""The stack as data: which processes run, with what, after what, and how one knows that they are ready.

The launcher writes the plan into the stack's directory and the supervisor reads it there, so what is supervised is
never guessed from code that may have changed meanwhile, and a test can supervise whatever it likes.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from deploy.local.errors import StackError

CHILD = Path(__file__).with_name("child.py")
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Completes:
    """Ready once it has exited with status 0; a process that ends is run once and not restarted."""

    kind: Literal["completes"] = "completes"


@dataclass(frozen=True, slots=True)
class PostgresAnswers:
    """Ready when a connection with the password opens and answers. ``dsn`` is a plain ``postgresql://`` one."""

    dsn: str
    kind: Literal["postgres"] = "postgres"


@dataclass(frozen=True, slots=True)
class RedisAnswers:
    """Ready when PING is answered with PONG (not while the server is loading)."""

    url: str
    kind: Literal["redis"] = "redis"


@dataclass(frozen=True, slots=True)
class QdrantAnswers:
    """Ready when ``qdrant.Qdrant/HealthCheck`` is answered on the gRPC port ``target`` (``host:port``)."""

    target: str
    kind: Literal["qdrant"] = "qdrant"


@dataclass(frozen=True, slots=True)
class GrpcServes:
    """Ready when ``grpc.health.v1`` says SERVING for the whole server (service ``""``) at ``target``."""

    target: str
    kind: Literal["grpc"] = "grpc"


@dataclass(frozen=True, slots=True)
class TcpListens:
    """Ready when a TCP connection to ``host:port`` is accepted."""

    target: str
    kind: Literal["tcp"] = "tcp"


ReadyCheck = Annotated[
    Completes | PostgresAnswers | RedisAnswers | QdrantAnswers | GrpcServes | TcpListens,
    Field(discriminator="kind"),
]


class Identity(StrEnum):
    """Who a process runs as; see ``child.py``."""

    SELF = "self"
    NAMESPACE = "namespace"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Port:
    """A port a process will listen on at 127.0.0.1, and what for (``rpc``, ``health``, ``metrics``, ...)."""

    use: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process of the stack.

    ``env`` is added to the environment the stack was started with. ``after`` names the processes that must be ready
    first; they are also the ones stopped later. ``stop_signal`` asks it to end, and is also what the kernel sends if
    the supervisor dies; after ``stop_grace_s`` its process group is killed.
    """

    name: str
    argv: tuple[str, ...]
    ready: ReadyCheck
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    identity: Identity = Identity.SELF
    cwd: Path | None = None
    stop_signal: int = int(signal.SIGTERM)
    stop_grace_s: float = 10.0

    @property
    def runs_once(self) -> bool:
        return isinstance(self.ready, Completes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How patient the supervisor is.

    The pause before the n-th restart in a row is ``first_pause_s * 2**(n-1)``, at most ``max_pause_s``; a process that
    was ready for ``max_pause_s`` starts from the beginning. Until the whole stack has been ready once, a process that
    dies ``start_attempts`` times, or is not ready after ``ready_timeout_s``, fails the start.
    """

    first_pause_s: float = 0.25
    max_pause_s: float = 10.0
    start_attempts: int = 3
    ready_timeout_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything the supervisor and the clients of a stack need to know. Holds passwords: its file is private.

    ``addresses``, ``health`` and ``metrics`` map a name to ``host:port``; ``env`` has the KITH_ variables with which
    another process uses the stack; the URLs are None where the stack does not have that store. ``orphan_grace_s`` is
    how long what outlived the supervisor may take to end.
    """

    processes: tuple[ProcessSpec, ...]
    port_base: int
    env: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    database_url: str | None = None
    redis_url: str | None = None
    qdrant_url: str | None = None
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    orphan_grace_s: float = 10.0

    def layers(self) -> list[list[str]]:
        """Names in start order, each layer depending only on earlier ones. Raises ``StackError`` if there is none."""
        names = [process.name for process in self.processes]
        if len(set(names)) != len(names):
            raise StackError(f"two processes of the plan have the same name: {names}")
        unknown = {dep for process in self.processes for dep in process.after} - set(names)
        if unknown:
            raise StackError(f"the plan waits for processes it does not have: {sorted(unknown)}")
        sorter = TopologicalSorter({process.name: process.after for process in self.processes})
        try:
            sorter.prepare()
        except CycleError as error:
            raise StackError(f"processes of the plan wait for each other: {error.args[1]}") from error
        layers: list[list[str]] = []
        while sorter.is_active():
            ready = set(sorter.get_ready())
            layers.append([name for name in names if name in ready])
            sorter.done(*ready)
        return layers

    def to_json(self) -> str:
        return _PLAN.dump_json(self, indent=1).decode()

    @staticmethod
    def from_json(text: str) -> Plan:
        """Raises ``pydantic.ValidationError`` for anything that is not a plan."""
        return _PLAN.validate_json(text)


_PLAN = TypeAdapter(Plan)


def child_argv(argv: tuple[str, ...], *, parent: int | None, death_signal: int, identity: Identity) -> list[str]:
    """The command line that runs ``argv`` through ``child.py``. ``parent`` None leaves its life untied."""
    command = [sys.executable, "-I", "-S", str(CHILD)]
    if parent is not None:
        command += ["--parent", str(parent), "--death-signal", str(death_signal)]
    if identity is Identity.NAMESPACE:
        command.append("--user-namespace")
    elif identity is Identity.NOBODY:
        command += ["--uid", str(NOBODY)]
    return [*command, "--", *argv]
