"""What every interceptor shares: a call of any kind, and how to put a rule around its handler.

gRPC hands interceptors an ``RpcMethodHandler``, of one of four kinds, whose function may be a coroutine or an async
generator. Here each becomes one coroutine over a :class:`Call`, so a rule is one method::

    async def around(self, call, proceed):
        ...                             # before: raise a KithError to refuse
        reply = await proceed(call)     # or proceed(replace(call, context=...))
        ...                             # after
        return reply

The reply is the response message, or ``None`` when responses are a stream: those go through ``call.context.write``.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio

from shared.errors import NotImplementedYet
from shared.rpc.interceptors.context import CallContext
from shared.rpc.method import Method, RpcKind

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


@dataclass(frozen=True, slots=True)
class Call:
    """One call being served. ``request`` is ``None`` when requests are a stream: those come from ``context.read``."""

    method: Method
    kind: RpcKind
    metadata: Mapping[str, str]
    request: Any
    context: CallContext


Proceed = Callable[[Call], Awaitable[Any]]
Around = Callable[[Call, Proceed], Awaitable[Any]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """An interceptor with one rule, :meth:`around`."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return wrap_handler(handler, self.around, handler_call_details, Codec.of(handler))

    @abstractmethod
    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Serve ``call`` by way of ``proceed``, which may be left out only by raising."""
        ...


@dataclass(frozen=True, slots=True)
class Codec:
    """How messages become bytes and back; ``None`` leaves them as they are."""

    decode: Callable[[bytes], Any] | None = None
    encode: Callable[[Any], bytes] | None = None

    @classmethod
    def of(cls, handler: Handler) -> Self:
        """The codec gRPC would use for ``handler``."""
        return cls(handler.request_deserializer, handler.response_serializer)


def kind_of(handler: Handler) -> RpcKind:
    """Which of the four kinds ``handler`` serves."""
    return RpcKind((bool(handler.request_streaming), bool(handler.response_streaming)))


def wrap_handler(handler: Handler, around: Around, details: grpc.HandlerCallDetails, codec: Codec) -> Handler:
    """``handler`` with ``around`` around it, itself a handler of the same kind that gRPC feeds through ``codec``."""
    kind = kind_of(handler)
    method = Method.parse(details.method)
    metadata = {key: value for key, value in details.invocation_metadata if isinstance(value, str)}

    async def proceed(call: Call) -> Any:
        argument = read_messages(call.context) if kind.request_streaming else call.request
        return await _run(_function_of(handler, kind), argument, call)

    async def serve(argument: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        request = None if kind.request_streaming else argument
        return await around(Call(method, kind, metadata, request, CallContext(context)), proceed)

    return _BUILDERS[kind](serve, codec.decode, codec.encode)


async def read_messages(context: CallContext) -> AsyncIterator[Any]:
    """The caller's stream, read through ``context`` so that every interceptor sees each message."""
    while (message := await context.read()) is not grpc.aio.EOF:
        yield message


async def _run(function: Callable[..., Any], argument: Any, call: Call) -> Any:
    """Run a coroutine function or drain an async generator function.

    Generated servicers answer methods nobody has written yet by plain functions that raise ``NotImplementedError``.
    """
    try:
        outcome = function(argument, call.context)
    except NotImplementedError as error:
        raise NotImplementedYet(f"{call.method} is not built yet", metadata={"method": str(call.method)}) from error
    if inspect.isasyncgen(outcome):
        async with aclosing(outcome) as messages:
            async for message in messages:
                await call.context.write(message)
        return None
    if inspect.isawaitable(outcome):
        return await outcome
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
