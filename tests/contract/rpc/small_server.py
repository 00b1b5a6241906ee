"""The server of ``process``: one method that answers when the test says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from shared.clock import SystemClock
from shared.config import Settings
from shared.ids import RandomIds
from shared.rpc.principal import OpenAuthenticator
from shared.rpc.server import RpcServer
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import Tracing

SERVICE = "kith.process.v1.ProcessService"


def build_server(settings: Settings, *, tell: Callable[[str], None], told: Callable[[], Awaitable[str]]) -> RpcServer:
    """Not started. ``GetSlow`` tells that it is inside, waits to be told, and answers what it was asked."""

    async def get_slow(request: StringValue, _context: Any) -> StringValue:
        tell("inside")
        await told()
        return request

    def add_to_server(_servicer: None, server: Any) -> None:
        build: Any = grpc.unary_unary_rpc_method_handler
        handler = build(get_slow, StringValue.FromString, StringValue.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"GetSlow": handler}),))

    server = RpcServer.build(
        settings.rpc,
        name="process",
        authenticator=OpenAuthenticator(),
        metrics=Metrics(),
        tracing=Tracing("process"),
        ids=RandomIds(SystemClock()),
    )
    server.add(add_to_server, None, SERVICE)
    return server
