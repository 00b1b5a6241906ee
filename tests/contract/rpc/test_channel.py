"""What our channels add: retries, balancing by health, and what a call carries along."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import grpc.aio
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from shared.config import RpcSettings
from shared.errors import Unavailable
from shared.rpc.ambient import carrying_request_id, current_request_id
from shared.rpc.channel import open_channel, translate_errors
from shared.telemetry.tracing import Tracing

from .conftest import Launch
from .echo import EchoClient, Via

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("via", [Via.UNARY, Via.SERVER_STREAM, Via.CLIENT_STREAM, Via.BIDI])
async def test_unavailable_is_tried_again(launch: Launch, via: Via) -> None:
    running = await launch()
    attempts: list[str] = []

    async def act(request: Any, context: Any) -> str:
        attempts.append(str(dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts", "0")))
        if len(attempts) < 3:
            raise Unavailable("not yet")
        return str(request.text)

    running.servicer.act = act
    assert await running.client.send(via, "x") == ["x"]
    assert attempts == ["0", "1", "2"]


async def test_five_attempts_and_no_more(launch: Launch) -> None:
    running = await launch()
    attempts = 0

    async def act(_request: Any, _context: Any) -> str:
        nonlocal attempts
        attempts += 1
        raise Unavailable("never")

    running.servicer.act = act
    with pytest.raises(Unavailable):
        async with translate_errors("echo"):
            await running.client.ask()
    assert attempts == 5


async def test_other_errors_are_not_tried_again(launch: Launch) -> None:
    running = await launch()
    attempts = 0

    async def act(_request: Any, _context: Any) -> str:
        nonlocal attempts
        attempts += 1
        raise RuntimeError("a bug")

    running.servicer.act = act
    with pytest.raises(grpc.aio.AioRpcError):
        await running.client.ask()
    assert attempts == 1


async def test_a_large_request_is_tried_again_too(launch: Launch) -> None:
    running = await launch()
    attempts = 0

    async def act(request: Any, _context: Any) -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise Unavailable("not yet")
        return str(len(request.text))

    running.servicer.act = act
    assert await running.client.ask("x" * 8_000_000) == "8000000"


async def test_a_call_outlives_a_restart_of_its_server(launch: Launch) -> None:
    first = await launch()
    assert await first.client.ask("warm") == "warm"
    await first.server.drain()
    asking = asyncio.create_task(first.client.ask("through"))
    await asyncio.sleep(0)
    await launch(port=first.server.port)
    assert await asking == "through"


async def test_balancing_leaves_a_server_that_is_not_serving(launch: Launch) -> None:
    one, other = await launch(), await launch()

    def answering(name: str) -> Any:
        async def act(_request: Any, _context: Any) -> str:
            return name

        return act

    one.servicer.act, other.servicer.act = answering("one"), answering("other")
    target = f"ipv4:{one.address},{other.address}"
    async with open_channel(target, RpcSettings()) as channel:
        client = EchoClient(channel)
        seen: set[str] = set()
        while seen != {"one", "other"}:
            seen.add(await client.ask())
        await one.server.readiness.drain()
        # The news takes a moment; once two calls in a row go to the other, one is out of the rotation.
        while [await client.ask(), await client.ask()] != ["other", "other"]:
            pass
        assert [await client.ask() for _ in range(4)] == ["other"] * 4


@pytest.mark.parametrize("via", [Via.UNARY, Via.SERVER_STREAM, Via.CLIENT_STREAM, Via.BIDI])
async def test_request_id_and_trace_travel_through_services(launch: Launch, via: Via) -> None:
    spans = InMemorySpanExporter()
    back = await launch(tracing=Tracing("back", SimpleSpanProcessor(spans)))
    front = await launch(tracing=Tracing("front", SimpleSpanProcessor(spans)))
    seen: list[str | None] = []

    async def note(request: Any, _context: Any) -> str:
        seen.append(current_request_id())
        return str(request.text)

    async def forward(request: Any, _context: Any) -> str:
        return (await back.client.send(via, request.text))[0]

    back.servicer.act, front.servicer.act = note, forward
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    metadata = (("x-request-id", "call-1"), ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"))
    await front.client.ask(metadata=metadata)
    assert seen == ["call-1"]
    await front.server.admission.wait_idle()
    await back.server.admission.wait_idle()
    assert {f"{span.context.trace_id:032x}" for span in spans.get_finished_spans() if span.context} == {trace_id}


async def test_a_request_id_is_made_where_none_came_or_it_is_unusable(launch: Launch) -> None:
    running = await launch()
    seen: list[str | None] = []

    async def note(_request: Any, _context: Any) -> str:
        seen.append(current_request_id())
        return ""

    running.servicer.act = note
    await running.client.ask()
    await running.client.ask(metadata=(("x-request-id", 'two words; "quoted"'),))
    assert all(made is not None and re.fullmatch(r"[0-9a-f-]{36}", made) for made in seen)
    assert seen[0] != seen[1]


async def test_a_jobs_calls_carry_its_id(launch: Launch) -> None:
    running = await launch()

    async def note(_request: Any, _context: Any) -> str:
        return str(current_request_id())

    running.servicer.act = note
    with carrying_request_id("job-1"):
        assert await running.client.ask() == "job-1"


async def test_each_call_is_one_line_and_is_counted(launch: Launch) -> None:
    running = await launch()
    with capture_logs() as lines:
        await running.client.ask(library_id="family")
        await running.server.drain()
    (line,) = [line for line in lines if line["event"] == "call ended"]
    assert (line["method"], line["code"], line["log_level"]) == (
        "kith.echo.v1.EchoService/GetEcho",
        "OK",
        "info",
    )
    assert line["ms"] > 0
    labels = {"service": "kith.echo.v1.EchoService", "method": "GetEcho", "code": "OK"}
    assert running.metrics.registry.get_sample_value("kith_rpc_calls_total", labels) == 1
    assert running.metrics.registry.get_sample_value("kith_rpc_seconds_count", labels) == 1
