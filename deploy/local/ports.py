"""Which ports a stack uses, and refusing them by name before anything starts.

Offsets from the base are fixed, so that an address can be told from the base alone.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psutil

from deploy.local.errors import PortInUseError, StackError
from deploy.local.plan import ProcessSpec

HOST = "127.0.0.1"
BLOCK = 50
SERVICES = ("detection", "clustering", "persons", "suggestions")
STORE_OFFSETS = (0, 1, 2, 3)
SERVICE_OFFSETS = (0, 1, 2, 5, 6)
# Of the second detection server, in the first one's block.
NEXT_OFFSETS = (7, 8, 9)
# Below the range the kernel picks outgoing ports from (32768 on Linux), so nobody gets one of these by accident.
FREE_RANGE = range(20000, 32000)


@dataclass(frozen=True, slots=True)
class StackPorts:
    """The ports of the stack at ``base``: stores at +0..+3, the services in blocks of ten from +10."""

    base: int

    @property
    def postgres(self) -> int:
        return self.base

    @property
    def valkey(self) -> int:
        return self.base + 1

    @property
    def qdrant_grpc(self) -> int:
        return self.base + 2

    @property
    def qdrant_http(self) -> int:
        return self.base + 3

    def rpc(self, service: str) -> int:
        return self._block(service)

    def health(self, service: str) -> int:
        return self._block(service) + 1

    def metrics(self, service: str) -> int:
        return self._block(service) + 2

    def worker_health(self, service: str) -> int:
        return self._block(service) + 5

    def worker_metrics(self, service: str) -> int:
        return self._block(service) + 6

    @property
    def next_rpc(self) -> int:
        return self._block("detection") + 7

    @property
    def next_health(self) -> int:
        return self._block("detection") + 8

    @property
    def next_metrics(self) -> int:
        return self._block("detection") + 9

    def _block(self, service: str) -> int:
        return self.base + 10 * (1 + SERVICES.index(service))


def address(port: int) -> str:
    return f"{HOST}:{port}"


def find_free_base(candidates: range = FREE_RANGE) -> int:
    """A base in ``candidates`` whose every port is free right now.

    The search starts at a random place, so that two stacks starting at once seldom try the same block; one that is
    unlucky all the same is told so by :func:`check_ports_free`. Raises ``PortInUseError`` if there is none.
    """
    bases = range(candidates.start, candidates.stop - BLOCK + 1, BLOCK)
    if not bases:
        raise StackError(f"a stack needs {BLOCK} ports in a row; {candidates} has fewer")
    first = random.SystemRandom().randrange(len(bases))
    offsets = [
        *STORE_OFFSETS,
        *(10 * (1 + n) + offset for n in range(len(SERVICES)) for offset in SERVICE_OFFSETS),
        *(10 + offset for offset in NEXT_OFFSETS),
    ]
    for turn in range(len(bases)):
        base = bases[(first + turn) % len(bases)]
        if all(_is_free(base + offset) for offset in offsets):
            return base
    raise PortInUseError(f"no {BLOCK} free ports in a row in {candidates}")


def check_ports_free(processes: Iterable[ProcessSpec]) -> None:
    """Raise ``PortInUseError`` naming each port taken, or wanted twice, what needs it, and who has it if known."""
    with ExitStack() as bound:
        problems = list(_bind_all(processes, bound))
    if problems:
        raise PortInUseError("; ".join(problems) + ". Choose another --port-base, or stop what runs there.")


def _bind_all(processes: Iterable[ProcessSpec], bound: ExitStack) -> Iterator[str]:
    wanted: dict[int, str] = {}
    for process in processes:
        for port in process.ports:
            want = f"{process.name} {port.use}"
            if port.number in wanted:
                yield f"port {port.number} is wanted by both {wanted[port.number]} and {want}"
                continue
            wanted[port.number] = want
            try:
                bound.enter_context(_bind(port.number))
            except (OSError, OverflowError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                holder = _describe_holder(port.number)
                yield f"port {port.number}, which {want} needs, cannot be used: {reason}{holder}"


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As servers do: connections of a stack just stopped, still in TIME_WAIT, are no obstacle.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_free(port: int) -> bool:
    try:
        _bind(port).close()
    except OSError:
        return False
    return True


def _describe_holder(port: int) -> str:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        # Listeners always have a local address; the type allows none, for sockets that are not bound yet.
        local = tuple(connection.laddr)
        if connection.status == psutil.CONN_LISTEN and local[1:] == (port,) and connection.pid:
            try:
                return f" (held by {psutil.Process(connection.pid).name()}, process {connection.pid})"
            except psutil.NoSuchProcess:
                return ""
    return ""
