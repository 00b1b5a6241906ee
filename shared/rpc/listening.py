"""Binding a server to its address, or saying clearly why not."""

from __future__ import annotations

import grpc.aio


class AddressTakenError(RuntimeError):
    """The address cannot be bound; nearly always another process has it."""


def listen(server: grpc.aio.Server, host: str, port: int, *, name: str) -> int:
    """Bind ``server`` and return the port, which the system chooses if ``port`` is 0. Raises :class:`AddressTakenError`."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressTakenError(f"{name}: cannot listen on {address}; another process is using it") from error
    if bound == 0:
        raise AddressTakenError(f"{name}: cannot listen on {address}; another process is using it")
    return bound
