"""A tiny real service for these tests: every kind of RPC, every way to write a handler, over messages made here.

What it answers is the test's: set ``servicer.act``. The messages are described at run time, so no generated code is needed,
and they stand in the default descriptor pool, so reflection knows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "kith.echo.v1.EchoService"
_TEXT = descriptor_pb2.FieldDescriptorProto.TYPE_STRING


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="kith/echo/v1/echo.proto", package="kith.echo.v1", syntax="proto3")
    request = file.message_type.add(name="EchoRequest")
    request.field.add(name="library_id", number=1, type=_TEXT, label=1)
    request.field.add(name="text", number=2, type=_TEXT, label=1)
    file.message_type.add(name="EchoReply").field.add(name="text", number=1, type=_TEXT, label=1)
    service = file.service.add(name="EchoService")
    for name, (asks, answers) in _METHODS.items():
        service.method.add(
            name=name,
            input_type=".kith.echo.v1.EchoRequest",
            output_type=".kith.echo.v1.EchoReply",
            client_streaming=asks,
            server_streaming=answers,
        )
    return file


_METHODS = {
    "GetEcho": (False, False),
    "WatchEcho": (False, True),
    "WatchEchoByWriting": (False, True),
    "ImportEchoes": (True, False),
    "ImportEchoesByReading": (True, False),
    "DetectStream": (True, True),
    "DetectStreamByWriting": (True, True),
    "UpdateEcho": (False, False),
    "UpdateNothing": (False, False),
    "GetUnbuilt": (False, False),
    "WatchUnbuilt": (False, True),
}


def _message(name: str) -> Any:
    pool = descriptor_pool.Default()
    try:
        descriptor = pool.FindMessageTypeByName(f"kith.echo.v1.{name}")
    except KeyError:
        pool.AddSerializedFile(_describe().SerializeToString())
        descriptor = pool.FindMessageTypeByName(f"kith.echo.v1.{name}")
    return message_factory.GetMessageClass(descriptor)


EchoRequest: Any = _message("EchoRequest")
EchoReply: Any = _message("EchoReply")

Act = Callable[[Any, Any], Awaitable[str]]


async def echo(request: Any, _context: Any) -> str:
    """The act a servicer begins with."""
    return str(request.text)


class EchoServicer:
    """Answers each request with ``act(request, context)``; on streams one answer per request."""

    def __init__(self, act: Act = echo) -> None:
        self.act = act

    async def GetEcho(self, request: Any, context: Any) -> Any:
        return EchoReply(text=await self.act(request, context))

    async def UpdateEcho(self, request: Any, context: Any) -> Any:
        return EchoReply(text=await self.act(request, context))

    async def WatchEcho(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield EchoReply(text=await self.act(request, context))

    async def WatchEchoByWriting(self, request: Any, context: Any) -> None:
        await context.write(EchoReply(text=await self.act(request, context)))

    async def ImportEchoes(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return EchoReply(text=" ".join([await self.act(request, context) async for request in requests]))

    async def ImportEchoesByReading(self, _requests: AsyncIterator[Any], context: Any) -> Any:
        texts = []
        while (request := await context.read()) is not grpc.aio.EOF:
            texts.append(await self.act(request, context))
        return EchoReply(text=" ".join(texts))

    async def DetectStream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield EchoReply(text=await self.act(request, context))

    async def DetectStreamByWriting(self, requests: AsyncIterator[Any], context: Any) -> None:
        async for request in requests:
            await context.write(EchoReply(text=await self.act(request, context)))

    async def UpdateNothing(self, _request: Any, _context: Any) -> None:
        """A handler that forgets its reply."""

    def GetUnbuilt(self, _request: Any, context: Any) -> Any:
        """As protoc generates a method nobody has written."""
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    WatchUnbuilt = GetUnbuilt


_HANDLERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def add_echo_to_server(servicer: Any, server: Any) -> None:
    """What generated code calls ``add_EchoServiceServicer_to_server``."""
    handlers = {
        name: _HANDLERS[shape](getattr(servicer, name), EchoRequest.FromString, EchoReply.SerializeToString)
        for name, shape in _METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class Via(Enum):
    """One method of each kind and each way of writing a handler."""

    UNARY = "GetEcho"
    SERVER_STREAM = "WatchEcho"
    SERVER_STREAM_BY_WRITING = "WatchEchoByWriting"
    CLIENT_STREAM = "ImportEchoes"
    CLIENT_STREAM_BY_READING = "ImportEchoesByReading"
    BIDI = "DetectStream"
    BIDI_BY_WRITING = "DetectStreamByWriting"

    @property
    def sends_many(self) -> bool:
        """The request is a stream."""
        return _METHODS[self.value][0]

    @property
    def writes(self) -> bool:
        """The method's name asks for the verb ``write``."""
        return self.value.startswith("Import")


class EchoClient:
    """Calls the service by method name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def call(self, method: str, *requests: Any, raw: bool = False, **options: Any) -> Any:
        """The gRPC call object. ``raw`` sends requests that are bytes already."""
        asks, answers = _METHODS.get(method, (False, False))
        kind = f"{'stream' if asks else 'unary'}_{'stream' if answers else 'unary'}"
        encode = None if raw else EchoRequest.SerializeToString
        multicallable = getattr(self._channel, kind)(f"/{SERVICE}/{method}", encode, EchoReply.FromString)
        if asks and not (len(requests) == 1 and isinstance(requests[0], AsyncIterator)):
            return multicallable(iter(requests), **options)
        return multicallable(requests[0], **options)

    async def send(self, via: Via, *texts: str, library_id: str = "", **options: Any) -> list[str]:
        """Send one request per text (only the first where one is all there can be) and collect the answers."""
        requests = [EchoRequest(text=text, library_id=library_id) for text in texts]
        call = self.call(via.value, *requests, **options)
        if _METHODS[via.value][1]:
            return [reply.text async for reply in call]
        return [(await call).text]

    async def provoke(
        self, via: Via, text: str | bytes = "x", *, at_once: bool = False, library_id: str = "", **options: Any
    ) -> None:
        """One request that will be refused: raises what the refusal is.

        A client stream is left open until then, and with ``at_once`` (the server refuses without reading) nothing is
        written to it: grpc.aio reports INTERNAL instead of the server's status when that crosses a write (grpc#36066).
        """
        refused = asyncio.Event()
        request = text if isinstance(text, bytes) else EchoRequest(text=text, library_id=library_id)

        async def open_ended() -> AsyncIterator[Any]:
            if not at_once:
                yield request
            await refused.wait()

        asks, answers = _METHODS[via.value]
        call = self.call(via.value, open_ended() if asks else request, raw=isinstance(request, bytes), **options)
        try:
            if not answers:
                await call
            else:
                async for _reply in call:
                    pass
        finally:
            refused.set()

    async def ask(self, text: str = "hello", **options: Any) -> str:
        """One unary call."""
        return (await self.send(Via.UNARY, text, **options))[0]
