"""Outermost: every call gets an id, a span, one log line, and is counted, however it ends."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import grpc
import grpc.aio
import structlog
from opentelemetry.trace import Span, StatusCode
from prometheus_client import Counter, Gauge, Histogram

from shared.ids import IdFactory
from shared.rpc.ambient import REQUEST_ID_KEY, carrying_request_id
from shared.rpc.interceptors.call import Call, CallInterceptor, Proceed
from shared.rpc.method import Method
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import Tracing

log = structlog.get_logger(__name__)

_USABLE_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")
_FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
_NOTABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
)


class TelemetryInterceptor(CallInterceptor):
    """The id is the caller's ``x-request-id`` if usable, else a new one, and goes back in trailing metadata."""

    def __init__(self, metrics: Metrics, tracing: Tracing, ids: IdFactory) -> None:
        self._tracing = tracing
        self._ids = ids
        self._meters = Meters(metrics)

    async def around(self, call: Call, proceed: Proceed) -> Any:
        if call.method.is_infrastructure:
            return await proceed(call)
        request_id = call.metadata.get(REQUEST_ID_KEY, "")
        if not _USABLE_ID.fullmatch(request_id):
            request_id = str(self._ids.new_uuid())
        call.context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        # Never unbound: gRPC serves each call in a task of its own, and what is bound ends with it.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        with carrying_request_id(request_id), self._tracing.serve(str(call.method), call.metadata) as span:
            return await self._observe(call, proceed, span)

    async def _observe(self, call: Call, proceed: Proceed, span: Span) -> Any:
        in_flight = self._meters.in_flight(call.method)
        in_flight.inc()
        began = time.perf_counter()
        code = grpc.StatusCode.UNKNOWN
        try:
            reply = await proceed(call)
            code = call.context.code() or grpc.StatusCode.OK
            return reply
        except grpc.aio.AbortError:
            code = call.context.code() or grpc.StatusCode.UNKNOWN
            raise
        except asyncio.CancelledError:
            late = call.context.time_remaining() == 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.InternalError:
            # gRPC could not write or read any more: the caller has gone.
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            seconds = time.perf_counter() - began
            in_flight.dec()
            self._meters.count(call.method, code, seconds)
            if span.is_recording():
                span.set_attribute("rpc.system", "grpc")
                span.set_attribute("rpc.grpc.status_code", code.value[0])
                if code in _FAULTS or code in _NOTABLE:
                    span.set_status(StatusCode.ERROR, code.name)
            self._log(call, code, seconds)

    def _log(self, call: Call, code: grpc.StatusCode, seconds: float) -> None:
        write = log.error if code in _FAULTS else log.warning if code in _NOTABLE else log.info
        write(
            "call ended",
            method=str(call.method),
            code=code.name,
            ms=round(seconds * 1000, 2),
            peer=call.context.peer(),
            retries=int(call.metadata.get("grpc-previous-rpc-attempts", "0")),
        )


class Meters:
    """The metrics of each method, looked up by their labels once."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._in_flight: dict[Method, Gauge] = {}
        self._ended: dict[tuple[Method, grpc.StatusCode], tuple[Counter, Histogram]] = {}

    def in_flight(self, method: Method) -> Gauge:
        """Calls of ``method`` being served."""
        gauge = self._in_flight.get(method)
        if gauge is None:
            gauge = self._in_flight[method] = self._metrics.rpc_in_flight.labels(method.service, method.name)
        return gauge

    def count(self, method: Method, code: grpc.StatusCode, seconds: float) -> None:
        """A call of ``method`` ended so, after so long."""
        ended = self._ended.get((method, code))
        if ended is None:
            labels = (method.service, method.name, code.name)
            ended = (self._metrics.rpc_calls.labels(*labels), self._metrics.rpc_seconds.labels(*labels))
            self._ended[method, code] = ended
        ended[0].inc()
        ended[1].observe(seconds)
