"""When a photo was taken, as far as its EXIF tells.

EXIF writes local wall-clock time, and only newer cameras add the offset to UTC. The offset is kept when there is one;
without it the wall-clock time is labelled UTC, which orders the photos of one camera rightly and is at most 14 hours
off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

from PIL import ExifTags

_DATE_TIME = re.compile(r"^\s*(\d{4})[:\-/](\d{2}|\s{2})(?:[:\-/](\d{2}|\s{2}))?(?:[ T](\d{2}):(\d{2})(?::(\d{2}))?)?")
_OFFSET = re.compile(r"^\s*([+-])(\d{2}):?(\d{2})\s*$")
_CLOCKS = (
    (int(ExifTags.Base.DateTimeOriginal), int(ExifTags.Base.OffsetTimeOriginal)),
    (int(ExifTags.Base.DateTimeDigitized), int(ExifTags.Base.OffsetTimeDigitized)),
)
CAPTURE_TAGS = frozenset(tag for clock in _CLOCKS for tag in clock)
"""Of EXIF's second directory, what :func:`read_capture_time` looks at."""
LONGEST_OFFSET = timedelta(hours=14)
"""No place on earth is further from UTC."""


class TimePrecision(StrEnum):
    """How much of a capture time is known."""

    SECOND = "SECOND"
    DAY = "DAY"
    MONTH = "MONTH"
    YEAR = "YEAR"


@dataclass(frozen=True, slots=True)
class CaptureTime:
    """``at`` is in UTC; with a precision coarser than a second it is the start of that day, month or year.

    ``utc_offset`` is the camera's offset if EXIF names it; None means ``at`` is the camera's wall clock labelled UTC.
    """

    at: datetime
    precision: TimePrecision
    utc_offset: timedelta | None


def read_capture_time(texts: Mapping[int, str]) -> CaptureTime | None:
    """DateTimeOriginal, else DateTimeDigitized, from EXIF texts by tag; None if neither is there or says anything.

    The plain DateTime tag is left out: editors overwrite it with the time of the last save.
    """
    for time_tag, offset_tag in _CLOCKS:
        found = parse_capture_time(texts.get(time_tag, ""), texts.get(offset_tag, ""))
        if found is not None:
            return found
    return None


def parse_capture_time(text: str, offset: str = "") -> CaptureTime | None:
    """Parse EXIF's ``YYYY:MM:DD HH:MM:SS``; a field of zeros or blanks ends what is known. None if the year is
    unknown.
    """
    match = _DATE_TIME.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) if part and part.strip() else None for part in match.groups())
    if not year:
        return None
    shift = _parse_offset(offset)
    try:
        if not month:
            return CaptureTime(datetime(year, 1, 1, tzinfo=UTC), TimePrecision.YEAR, None)
        if not day:
            return CaptureTime(datetime(year, month, 1, tzinfo=UTC), TimePrecision.MONTH, None)
        if hour is None or minute is None:
            return CaptureTime(datetime(year, month, day, tzinfo=UTC), TimePrecision.DAY, None)
        zone = UTC if shift is None else timezone(shift)
        # Some cameras write a leap second or 60 by mistake; a second less is nearer the truth than no time at all.
        at = datetime(year, month, day, hour, minute, min(second or 0, 59), tzinfo=zone)
        return CaptureTime(at.astimezone(UTC), TimePrecision.SECOND, shift)
    except (ValueError, OverflowError):
        # Month 13, hour 25 or a time before year 1: the tag is nonsense, which is the same as not having it.
        return None


def _parse_offset(text: str) -> timedelta | None:
    match = _OFFSET.match(text)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    size = timedelta(hours=int(hours), minutes=int(minutes))
    if size > LONGEST_OFFSET:
        return None
    return -size if sign == "-" else size
