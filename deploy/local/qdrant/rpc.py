"""The gRPC side: binds tables of methods to services, on one engine thread, with errors mapped in one place.

All state lives on the engine thread: the catalogue, the shards, the checks before a write. Calls run there
one after another, so check-then-write is atomic without a lock. The event loop stays free for accepting calls
and for health checks, which need no engine. Only, the engine keeps the interpreter's lock while it works: a
health check waits for the call in progress, and that is why the size of a page is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from deploy.local.qdrant.errors import Refusal, Unsupported

Method = Callable[[Any], Any]
"""From the message of a request to the message of its reply."""

Runner = Callable[[Method, Any], Awaitable[Any]]
"""Calls a method with a request, on the thread it belongs to."""

_Behaviour = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Any]]
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class EngineThread:
    """The one thread on which the engine and the catalogue are used."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qdrant-engine")

    async def run(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """Run `call` after all calls made before. A call cancelled while it waits is not run at all."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    def close(self) -> None:
        """Wait for the calls that were made, then end the thread."""
        self._executor.shutdown(wait=True)


def bind_service(service: ServiceDescriptor, methods: Mapping[str, Method], run: Runner) -> grpc.GenericRpcHandler:
    """A handler for every method of `service`; those that `methods` lacks answer UNIMPLEMENTED by name.

    Raises:
        ValueError: `methods` names a method that the service does not have.
    """
    unknown = methods.keys() - service.methods_by_name.keys()
    if unknown:
        raise ValueError(f"{service.full_name} has no method {', '.join(sorted(unknown))}")
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for descriptor in service.methods:
        method = methods.get(descriptor.name) or _unsupported(descriptor)
        handlers[descriptor.name] = grpc.unary_unary_rpc_method_handler(
            _behaviour(descriptor, method, run),
            request_deserializer=GetMessageClass(descriptor.input_type).FromString,
            response_serializer=GetMessageClass(descriptor.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _unsupported(descriptor: MethodDescriptor) -> Method:
    def refuse(_: Any) -> Any:
        raise Unsupported(descriptor.full_name)

    return refuse


def _behaviour(descriptor: MethodDescriptor, method: Method, run: Runner) -> _Behaviour:
    timed = "time" in descriptor.output_type.fields_by_name

    async def serve(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        started = time.perf_counter()
        try:
            reply = await run(method, request)
        except Refusal as refusal:
            await context.abort(refusal.code, str(refusal))
        except Exception as defect:
            logger.exception("%s failed", descriptor.full_name)
            await context.abort(grpc.StatusCode.INTERNAL, f"{descriptor.full_name}: {defect}")
        if timed:
            reply.time = time.perf_counter() - started
        return reply

    return serve
