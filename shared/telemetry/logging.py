"""Logs: one structured line per event, from this house and from every library, through one sink.

Standard logging is process-wide by its nature, so this is the one place that sets it up, called once at process start by
``shared.rpc.lifecycle``. Modules ask for a logger with ``structlog.get_logger(__name__)``. What was bound with
``structlog.contextvars`` (``request_id``, ``library_id``, ``subject``) and the ids of the current span are on every line.

Lines of this house go to the sink as soon as they are rendered: a detour through standard logging, on which those of libraries
come, would double what a line costs, and every call writes one. A last processor makes sure that no image bytes, embedding,
token or password of a DSN reaches the sink, whoever logs it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any, TextIO
from uuid import UUID

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.config import TelemetrySettings

REDACTED = "[redacted]"
MAX_TEXT = 16_000
MAX_ITEMS = 50

_SECRET_KEYS = frozenset({"authorization", "api_key", "bearer", "dsn", "password", "secret", "service_token", "token"})
_URL_PASSWORD = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@'\"]*@")
_BEARER = re.compile(r"(?i)\bbearer\s+[^\s'\",)]+")
_PLAIN = (str, int, float, bool, type(None))
_PRINTABLE = (UUID, datetime, date, timedelta, Enum, PurePath)
# Libraries whose INFO is about themselves, one line per call.
_CHATTY = ("httpx", "httpcore", "asyncio", "grpc", "arq", "sqlalchemy.engine")


def configure_logging(settings: TelemetrySettings, *, process: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process to ``stream`` (default: stderr) as JSON or as coloured text.

    ``process`` names the process on every line, e.g. ``detection.server``. Raises ``ValueError`` for an unknown level.
    """
    sink = stream if stream is not None else sys.stderr
    level = logging.getLevelNamesMapping().get(settings.log_level.upper())
    if level is None:
        raise ValueError(f"KITH_TELEMETRY_LOG_LEVEL: unknown level '{settings.log_level}'")

    def name_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        return event

    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_process,
        add_trace_ids,
        structlog.processors.format_exc_info,
        redact,
    ]
    render = _renderer(settings.log_format, colors=sink.isatty())
    handler = logging.StreamHandler(sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    structlog.configure(
        processors=[*processors, render],
        logger_factory=lambda name="": _Lines(handler, name),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class _Lines:
    """Writes rendered lines between those of ``handler``, to the same stream and under the same lock."""

    def __init__(self, handler: logging.StreamHandler[TextIO], name: str) -> None:
        self._handler = handler
        self.name = name

    def info(self, line: str) -> None:
        """One line; what its level is stands in it."""
        with self._handler.lock or nullcontext(), suppress(OSError, ValueError):
            # A full disk or a closed pipe has nobody left to be told: the line is lost, and what it tells of is done.
            self._handler.stream.write(f"{line}\n")
            self._handler.stream.flush()

    debug = warning = error = critical = exception = info


def _renderer(log_format: str, *, colors: bool) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=colors)


def add_trace_ids(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: ``trace_id`` and ``span_id`` of the current span, in the hexadecimal form collectors search by."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: replace what must never be logged. Underscored keys belong to structlog and are left alone."""
    return {
        key: value if key.startswith("_") else REDACTED if key.lower() in _SECRET_KEYS else safe_value(value)
        for key, value in event.items()
    }


def safe_value(value: object) -> object:
    """A loggable stand-in: scalars as they are, text without secrets, anything opaque only by its type.

    Messages, arrays and dataclasses may hold image bytes, embeddings or names, so they are never printed.
    """
    if isinstance(value, str):
        return _safe_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, BaseException):
        return _safe_text(f"{type(value).__name__}: {value}")
    if isinstance(value, Enum):
        return safe_value(value.value)
    if isinstance(value, _PRINTABLE):
        return str(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return _safe_mapping(value)
    if isinstance(value, list | tuple | set | frozenset):
        return _safe_sequence(list(value))
    return f"<{type(value).__name__}>"


def _safe_text(text: str) -> str:
    clean = text
    # Both searches read far more than these, and hardly any text has either.
    if "@" in clean:
        clean = _URL_PASSWORD.sub(rf"\g<scheme>{REDACTED}@", clean)
    if "bearer" in clean.lower():
        clean = _BEARER.sub(f"Bearer {REDACTED}", clean)
    return clean if len(clean) <= MAX_TEXT else f"{clean[:MAX_TEXT]}... ({len(clean)} characters)"


def _safe_mapping(values: Mapping[Any, Any]) -> dict[str, object]:
    return {
        str(key): REDACTED if str(key).lower() in _SECRET_KEYS else safe_value(value) for key, value in values.items()
    }


def _safe_sequence(values: Sequence[object]) -> list[object]:
    shown = [safe_value(value) for value in values[:MAX_ITEMS]]
    if len(values) > MAX_ITEMS:
        shown.append(f"... {len(values)} in all")
    return shown
