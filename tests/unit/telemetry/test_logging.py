"""Log lines carry the call they belong to and never a secret, whoever writes them."""

from __future__ import annotations

import errno
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from pydantic import SecretStr

from shared.config import TelemetrySettings
from shared.telemetry.logging import configure_logging, safe_value


@pytest.fixture
def sink() -> Iterator[io.StringIO]:
    """Where lines go; what the process had set up before is put back."""
    root = logging.getLogger()
    handlers, level, former = list(root.handlers), root.level, structlog.get_config()
    stream = io.StringIO()
    configure_logging(TelemetrySettings(), process="persons.server", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**former)


def lines(sink: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sink.getvalue().splitlines()]


def test_a_line_is_json_with_process_time_and_what_is_bound(sink: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="call-1", library_id="family"):
        structlog.get_logger("kith.test").info("hello", count=3)
    (line,) = lines(sink)
    assert (line["event"], line["level"], line["process"], line["logger"]) == (
        "hello",
        "info",
        "persons.server",
        "kith.test",
    )
    assert (line["request_id"], line["library_id"], line["count"]) == ("call-1", "family", 3)
    assert line["timestamp"].endswith("Z")


def test_lines_of_libraries_go_the_same_way(sink: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="call-2"):
        logging.getLogger("some.library").warning("cannot reach %s", "redis://:pass@cache:6379/0")
    (line,) = lines(sink)
    assert (line["event"], line["request_id"]) == ("cannot reach redis://[redacted]@cache:6379/0", "call-2")


def test_the_level_holds(sink: io.StringIO) -> None:
    structlog.get_logger("kith.test").debug("unseen")
    logging.getLogger("httpx").info("unseen")
    assert lines(sink) == []


def test_a_traceback_has_no_locals_and_no_password(sink: io.StringIO) -> None:
    image = b"\xff\xd8image"
    try:
        raise ConnectionError("postgresql+asyncpg://kith:pass@db:5432/kith")
    except ConnectionError:
        structlog.get_logger("kith.test").exception("failed", image=image)
    (line,) = lines(sink)
    assert "test_a_traceback_has_no_locals" in line["exception"]
    assert "pass@" not in sink.getvalue()
    assert line["image"] == "<7 bytes>"


def test_the_trace_is_named(sink: io.StringIO) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("span") as span:
        structlog.get_logger("kith.test").info("inside")
    (line,) = lines(sink)
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_console_lines_are_text(sink: io.StringIO) -> None:
    configure_logging(TelemetrySettings(log_format="console"), process="x", stream=sink)
    structlog.get_logger("kith.test").info("hello", authorization="Bearer abc")
    assert "hello" in sink.getvalue()
    assert "abc" not in sink.getvalue()


class FullDisk(io.StringIO):
    """Takes what is written and cannot keep it, until there is room again."""

    full = True

    def flush(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")


@pytest.mark.usefixtures("sink")
def test_a_sink_that_is_full_or_gone_fails_nobody() -> None:
    stream = FullDisk()
    configure_logging(TelemetrySettings(), process="x", stream=stream)
    log = structlog.get_logger("kith.test")
    log.info("lost")
    stream.full = False
    log.info("kept")
    assert lines(stream)[-1]["event"] == "kept"
    stream.close()
    log.info("lost, too")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="KITH_TELEMETRY_LOG_LEVEL"):
        configure_logging(TelemetrySettings(log_level="LOUD"), process="x")


@dataclass
class Opaque:
    """Something whose repr would tell too much."""

    name: str = "a person's name"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"abc", "<3 bytes>"),
        (Opaque(), "<Opaque>"),
        (SecretStr("pass"), "<SecretStr>"),
        ("authorization: Bearer abc.def", "authorization: Bearer [redacted]"),
        ("see https://host/path", "see https://host/path"),
        ({"Token": "abc", "n": 1}, {"Token": "[redacted]", "n": 1}),
        ([b"abc", None, 1.5, True], ["<3 bytes>", None, 1.5, True]),
        (ValueError("redis://:pass@h"), "ValueError: redis://[redacted]@h"),
    ],
)
def test_what_is_shown_of_a_value(value: object, shown: object) -> None:
    assert safe_value(value) == shown


def test_long_values_are_cut() -> None:
    text, items = safe_value("x" * 20_000), safe_value(list(range(100)))
    assert isinstance(text, str)
    assert len(text) < 16_100
    assert isinstance(items, list)
    assert items[-1] == "... 100 in all"
