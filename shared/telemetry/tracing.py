"""Traces: W3C trace context in and out, spans to an OTLP collector if one is configured.

Without a collector no span is recorded, yet a caller's ``traceparent`` still travels through every process and log line,
so a trace that begins outside is never cut here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import INVALID_SPAN, NoOpTracerProvider, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.config import TelemetrySettings

TRACE_PARENT = "traceparent"


class Tracing:
    """Makes spans. Pass it in; the OpenTelemetry globals are not used."""

    def __init__(self, process: str, processor: SpanProcessor | None = None) -> None:
        """``processor`` receives ended spans; ``None`` records none."""
        self._provider: TracerProvider | None = None
        if processor is None:
            self._tracer = NoOpTracerProvider().get_tracer("kith")
        else:
            self._provider = TracerProvider(
                resource=Resource.create({SERVICE_NAME: f"kith.{process}"}), shutdown_on_exit=False
            )
            self._provider.add_span_processor(processor)
            self._tracer = self._provider.get_tracer("kith")

    @contextmanager
    def span(self, name: str, *, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[Span]:
        """A span below the current one; an exception that leaves it is recorded on it."""
        with self._tracer.start_as_current_span(name, kind=kind) as span:
            yield span

    def serve(self, name: str, carrier: Mapping[str, str]) -> AbstractContextManager[Span]:
        """The server side of a call: a span below the caller's, read from ``carrier`` (request metadata)."""
        if self._provider is None and TRACE_PARENT not in carrier:
            return nullcontext(INVALID_SPAN)
        return self._serve(name, carrier)

    @contextmanager
    def _serve(self, name: str, carrier: Mapping[str, str]) -> Iterator[Span]:
        token = otel_context.attach(TraceContextTextMapPropagator().extract(carrier))
        try:
            with self._tracer.start_as_current_span(
                name, kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
            ) as span:
                yield span
        finally:
            otel_context.detach(token)

    async def close(self) -> None:
        """Send what is still buffered."""
        if self._provider is not None:
            await asyncio.to_thread(self._provider.shutdown)


# A collector that is away must not hold up a process that stops.
_EXPORT_TIMEOUT_S = 2


def build_tracing(settings: TelemetrySettings, *, process: str) -> Tracing:
    """Spans to ``settings.otlp_endpoint``, or none if it is unset."""
    if settings.otlp_endpoint is None:
        return Tracing(process)
    exporter = OTLPSpanExporter(
        endpoint=settings.otlp_endpoint,
        insecure=not settings.otlp_endpoint.startswith("https://"),
        timeout=_EXPORT_TIMEOUT_S,
    )
    return Tracing(process, BatchSpanProcessor(exporter))


def outgoing_trace() -> dict[str, str]:
    """The current span as metadata for a call to another service: ``traceparent`` and, if set, ``tracestate``."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def current_trace_id() -> str | None:
    """The current trace's id in hexadecimal, if there is one."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None
