"""A caller's trace goes on here and is passed on, recorded or not."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.config import TelemetrySettings
from shared.telemetry.tracing import Tracing, build_tracing, outgoing_trace

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
CARRIER = {"traceparent": f"00-{TRACE}-{SPAN}-01"}


def test_without_a_collector_the_callers_trace_is_passed_on_unchanged() -> None:
    with build_tracing(TelemetrySettings(), process="x").serve("call", CARRIER):
        assert outgoing_trace() == CARRIER
    assert outgoing_trace() == {}


def test_with_one_our_span_stands_between() -> None:
    spans = InMemorySpanExporter()
    tracing = Tracing("x", SimpleSpanProcessor(spans))
    with tracing.serve("call", CARRIER), tracing.span("inside"):
        passed_on = outgoing_trace()["traceparent"]
    inside, served = spans.get_finished_spans()
    assert served.parent is not None
    assert f"{served.parent.span_id:016x}" == SPAN
    assert inside.context is not None
    assert passed_on == f"00-{TRACE}-{inside.context.span_id:016x}-01"


@pytest.mark.asyncio
async def test_a_collector_that_is_not_there_harms_nothing() -> None:
    tracing = build_tracing(TelemetrySettings(otlp_endpoint="http://127.0.0.1:1"), process="x")
    with tracing.serve("call", {}):
        assert outgoing_trace()["traceparent"].startswith("00-")
    await tracing.close()
