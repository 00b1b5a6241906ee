"""Outermost: every call gets an id, a span, one log line, and is counted, however it ends."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import structlog
from opentelemetry.trace import Span, StatusCode

from shared.ids import IdFactory
from shared.rpc.ambient import REQUEST_ID_KEY, carrying_request_id
from shared.rpc.interceptors.call import Call, CallInterceptor, Proceed
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
        self._metrics = metrics
        self._tracing = tracing
        self._ids = ids

    async def around(self, call: Call, proceed: Proceed) -> Any:
        if call.method.is_infrastructure:
            return await proceed(call)
        request_id = call.metadata.get(REQUEST_ID_KEY, "")
        if not _USABLE_ID.fullmatch(request_id):
            request_id = str(self._ids.new_uuid())
        call.context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        with (
            carrying_request_id(request_id),
            structlog.contextvars.bound_contextvars(request_id=request_id),
            self._tracing.serve(str(call.method), call.metadata) as span,
            self._observed(call, span),
        ):
            return await proceed(call)

    @contextmanager
    def _observed(self, call: Call, span: Span) -> Iterator[None]:
        labels = (call.method.service, call.method.name)
        in_flight = self._metrics.rpc_in_flight.labels(*labels)
        in_flight.inc()
        began = time.perf_counter()
        code = grpc.StatusCode.UNKNOWN
        try:
            yield
            code = call.context.code() or grpc.StatusCode.OK
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
            self._metrics.rpc_calls.labels(*labels, code.name).inc()
            self._metrics.rpc_seconds.labels(*labels, code.name).observe(seconds)
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
