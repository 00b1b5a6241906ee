"""The yardstick: a bare grpc.aio server whose answers are as large as it is told, and of which nothing is asked but that.

No interceptor, no message, no store: what gRPC itself costs in Python, and so what no service on it can exceed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import grpc
import grpc.aio

SERVICE = "bench.Echo"


def method_answering(size: int) -> str:
    """The method that answers ``size`` bytes."""
    return f"/{SERVICE}/{size}"


class _Echo(grpc.GenericRpcHandler):
    """Handlers by the size in the method's name, made once."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method not in self._handlers:
            size = int(method.rpartition("/")[2])
            self._handlers[method] = grpc.unary_unary_rpc_method_handler(_answering(bytes(size)))
        return self._handlers[method]


def _answering(answer: bytes) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def serve(_request: bytes, _context: Any) -> bytes:
        return answer

    return serve


async def _serve(found: Connection) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    found.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()


def _run(found: Connection) -> None:
    asyncio.run(_serve(found))


@contextmanager
def running_echo() -> Iterator[str]:
    """The echo in a process of its own; answers where."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_run, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        yield f"127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()
