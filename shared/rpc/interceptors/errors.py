"""The one place where an exception becomes a status.

Also where bytes become messages: gRPC itself would answer UNKNOWN, with the parser's words, to bytes it cannot parse.
What nobody foresaw reaches the caller as INTERNAL with a request id; the log line of that id has the traceback.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Never

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from shared.errors import InvalidRequest, KithError
from shared.rpc.ambient import current_request_id
from shared.rpc.failures import to_kith_error
from shared.rpc.interceptors.call import Call, CallInterceptor, Codec, Proceed
from shared.rpc.interceptors.context import CallContext
from shared.rpc.method import RpcKind
from shared.rpc.status import DETAILS_KEY, status_code, to_status

log = structlog.get_logger(__name__)


class ErrorsInterceptor(CallInterceptor):
    """KithErrors and the stores' failures by name, everything else INTERNAL. Cancellation by the caller passes."""

    async def around(self, call: Call, proceed: Proceed) -> Any:
        try:
            return await _proceed_with_messages(call, proceed)
        # The status is decided already, or the caller has gone and gRPC says so in its own words.
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this call was cancelled, but something it awaited; gRPC would never answer.
            await _refuse(call, error)
        except Exception as error:
            await _refuse(call, error)


async def _proceed_with_messages(call: Call, proceed: Proceed) -> Any:
    request = None if call.data is None else _decode(call.codec, call.data)
    streams = call.kind is not RpcKind.UNARY_UNARY
    context = _CodecContext(call.context, call.codec) if streams else call.context
    reply = await proceed(replace(call, request=request, context=context))
    return None if call.kind.response_streaming else _encode(call.codec, reply)


async def _refuse(call: Call, error: BaseException) -> Never:
    known = to_kith_error(error)
    request_id = current_request_id()
    if known is None:
        log.error("unexpected failure", method=str(call.method), exc_info=error)
        known = KithError(f"internal error; the server's log has it under request id {request_id or 'unknown'}")
    elif known is not error:
        log.warning("a dependency failed", method=str(call.method), reason=known.reason.value, exc_info=error)
    else:
        log.debug("call refused", method=str(call.method), reason=known.reason.value, detail=known.message)
    status = to_status(known, request_id)
    await call.context.abort(
        status_code(known.code),
        status.message,
        (*call.context.trailing_metadata(), (DETAILS_KEY, status.SerializeToString())),
    )


class _CodecContext(CallContext):
    """Reads and writes messages over a context that reads and writes bytes."""

    def __init__(self, inner: grpc.aio.ServicerContext[Any, Any], codec: Codec) -> None:
        super().__init__(inner)
        self._codec = codec

    async def read(self) -> Any:
        data = await self._inner.read()
        return data if data is grpc.aio.EOF else _decode(self._codec, data)

    async def write(self, message: Any) -> None:
        await self._inner.write(_encode(self._codec, message))


def _decode(codec: Codec, data: bytes) -> Any:
    if codec.decode is None:
        return data
    try:
        return codec.decode(data)
    except DecodeError as error:
        raise InvalidRequest("the request is not a message of this call's type") from error


def _encode(codec: Codec, message: Any) -> Any:
    return message if codec.encode is None else codec.encode(message)
