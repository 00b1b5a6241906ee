"""What every interceptor shares: a call of any kind, and how to put a rule around its handler.

gRPC hands out an ``RpcMethodHandler``, of one of four kinds, whose function may be a coroutine or an async generator. Here
each becomes one coroutine over a :class:`Call`, so a rule is one method::

    async def around(self, call, proceed):
        ...                             # before: raise a KithError to refuse
        reply = await proceed(call)     # or proceed(replace(call, context=...))
        ...                             # after
        return reply

The reply is the response message, or ``None`` when responses are a stream: those go through ``call.context.write``.

These are not gRPC's own interceptors. Those are asked for a handler at every call, one after the other; six of them cost more
than gRPC itself. Here the rules are put around each method once, when its service is added to an :class:`InterceptedServer`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio

from shared.errors import NotImplementedYet
from shared.rpc.interceptors.context import CallContext
from shared.rpc.method import Method, RpcKind

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Codec:
    """How messages become bytes and back; ``None`` leaves them as they are."""

    decode: Callable[[bytes], Any] | None = None
    encode: Callable[[Any], bytes] | None = None

    @classmethod
    def of(cls, handler: Handler) -> Self:
        """The codec gRPC would use for ``handler``."""
        return cls(handler.request_deserializer, handler.response_serializer)


@dataclass(frozen=True, slots=True)
class Call:
    """One call being served.

    ``data`` is the request as it came and ``request`` the message it was decoded to; both are ``None`` when requests are a
    stream: those come from ``context.read``.
    """

    method: Method
    kind: RpcKind
    codec: Codec
    metadata: Mapping[str, str]
    data: bytes | None
    request: Any
    context: CallContext


Proceed = Callable[[Call], Awaitable[Any]]


class CallInterceptor(ABC):
    """An interceptor with one rule, :meth:`around`."""

    @abstractmethod
    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Serve ``call`` by way of ``proceed``, which may be left out only by raising."""
        ...


class InterceptedServer:
    """A gRPC server as the generated ``add_XServicer_to_server`` see it: what is added is served through interceptors."""

    def __init__(self, server: grpc.aio.Server, interceptors: Sequence[CallInterceptor]) -> None:
        """``interceptors`` are given outermost first."""
        self._server = server
        self._interceptors = tuple(interceptors)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As of ``grpc.aio.Server``."""
        self._server.add_generic_rpc_handlers(
            [_InterceptedHandlers(handlers, self._interceptors) for handlers in generic_rpc_handlers]
        )

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """As of ``grpc.aio.Server``."""
        self._server.add_registered_method_handlers(
            service_name,
            {
                name: intercept(handler, Method(service_name, name), self._interceptors)
                for name, handler in method_handlers.items()
            },
        )


class _InterceptedHandlers(grpc.GenericRpcHandler):
    """The handlers of ``inner``, each wrapped when it is first asked for."""

    def __init__(self, inner: grpc.GenericRpcHandler, interceptors: Sequence[CallInterceptor]) -> None:
        self._inner = inner
        self._interceptors = interceptors
        self._wrapped: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[path] = intercept(handler, Method.parse(path), self._interceptors)
        return wrapped


def kind_of(handler: Handler) -> RpcKind:
    """Which of the four kinds ``handler`` serves."""
    return RpcKind((bool(handler.request_streaming), bool(handler.response_streaming)))


def intercept(handler: Handler, method: Method, interceptors: Sequence[CallInterceptor]) -> Handler:
    """``handler`` with ``interceptors`` around it, outermost first: of the same kind, but gRPC feeds it bytes.

    One of the interceptors turns them into messages by :attr:`Call.codec`, and the reply into bytes.
    """
    kind = kind_of(handler)
    codec = Codec.of(handler)
    proceed: Proceed = partial(_run, _function_of(handler, kind))
    for interceptor in reversed(interceptors):
        proceed = partial(interceptor.around, proceed=proceed)
    serve_call = proceed

    async def serve(argument: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        data = None if kind.request_streaming else argument
        return await serve_call(Call(method, kind, codec, metadata, data, None, CallContext(context)))

    return _BUILDERS[kind](serve, None, None)


async def read_messages(context: CallContext) -> AsyncIterator[Any]:
    """The caller's stream, read through ``context`` so that every interceptor sees each message."""
    while (message := await context.read()) is not grpc.aio.EOF:
        yield message


async def _run(function: Callable[..., Any], call: Call) -> Any:
    """Run a coroutine function or drain an async generator function.

    Generated servicers answer methods nobody has written yet by plain functions that raise ``NotImplementedError``.
    """
    argument = read_messages(call.context) if call.kind.request_streaming else call.request
    try:
        outcome = function(argument, call.context)
    except NotImplementedError as error:
        raise NotImplementedYet(f"{call.method} is not built yet", metadata={"method": str(call.method)}) from error
    if inspect.iscoroutine(outcome) or inspect.isawaitable(outcome):
        return await outcome
    if inspect.isasyncgen(outcome):
        async with aclosing(outcome) as messages:
            async for message in messages:
                await call.context.write(message)
        return None
    raise TypeError(f"{call.method} is served by a function that is not async")


def _function_of(handler: Handler, kind: RpcKind) -> Callable[..., Any]:
    function: Any = {
        RpcKind.UNARY_UNARY: handler.unary_unary,
        RpcKind.UNARY_STREAM: handler.unary_stream,
        RpcKind.STREAM_UNARY: handler.stream_unary,
        RpcKind.STREAM_STREAM: handler.stream_stream,
    }[kind]
    if function is None:
        raise TypeError(f"a handler of kind {kind.name} without its function")
    return function  # type: ignore[no-any-return]


_BUILDERS: Mapping[RpcKind, Callable[..., Handler]] = {
    RpcKind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    RpcKind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    RpcKind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    RpcKind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}
