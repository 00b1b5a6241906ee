"""Moments, spans and capture times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from kith.common.v1 import types_pb2
from services.detection.domain.model import Captured, TimeSpan
from shared.errors import InvalidRequest
from shared.imaging.capture import LONGEST_OFFSET, TimePrecision
from shared.jobs.convert import to_timestamp
from shared.rpc.enums import from_enum

_MINUTE = timedelta(minutes=1)
_LONGEST_OFFSET = LONGEST_OFFSET // _MINUTE


def from_timestamp(stamp: Timestamp, field: str) -> datetime:
    """A moment in UTC; raises :class:`InvalidRequest` naming ``field`` if it lies outside the years 1..9999."""
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{field} must lie in the years 1..9999", field=field) from error


def from_range(span: types_pb2.TimeRange, field: str) -> TimeSpan:
    """A span of time; what is unset is open."""
    return TimeSpan(
        start=from_timestamp(span.start, f"{field}.start") if span.HasField("start") else None,
        end=from_timestamp(span.end, f"{field}.end") if span.HasField("end") else None,
    )


def to_captured(captured: Captured | None) -> types_pb2.CaptureTime | None:
    """A capture time as a message; None stays unset."""
    if captured is None:
        return None
    precision = types_pb2.TimePrecision.Value(f"TIME_PRECISION_{captured.precision.value}")
    return types_pb2.CaptureTime(
        time=to_timestamp(captured.at), precision=precision, utc_offset_minutes=captured.utc_offset_minutes
    )


def from_captured(message: types_pb2.CaptureTime, field: str) -> Captured | None:
    """A capture time; None if the message is empty. An unset precision is SECOND.

    Raises :class:`InvalidRequest` naming what is missing or out of range.
    """
    offset = message.utc_offset_minutes if message.HasField("utc_offset_minutes") else None
    if not message.HasField("time"):
        if message.precision != types_pb2.TIME_PRECISION_UNSPECIFIED or offset is not None:
            raise InvalidRequest(f"{field}.time is required with a precision or an offset", field=f"{field}.time")
        return None
    if offset is not None and abs(offset) > _LONGEST_OFFSET:
        name = f"{field}.utc_offset_minutes"
        raise InvalidRequest(f"{name} must be -{_LONGEST_OFFSET}..{_LONGEST_OFFSET}", field=name)
    precision = TimePrecision.SECOND
    if message.precision != types_pb2.TIME_PRECISION_UNSPECIFIED:
        precision = from_enum(
            types_pb2.TimePrecision.Name, message.precision, TimePrecision, "TIME_PRECISION_", f"{field}.precision"
        )
    return Captured(from_timestamp(message.time, f"{field}.time"), precision, offset)
