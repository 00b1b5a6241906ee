"""What a photo's EXIF tells that matters here: how the camera was held, and when.

Read by hand: of some sixty entries it needs six, which takes a sixth of Pillow's time for all of them, and a hostile block
leaves no line of warning for each of its thousands.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass

from PIL import ExifTags

from shared.imaging.capture import CAPTURE_TAGS, CaptureTime, read_capture_time

EXIF_PREFIX = b"Exif\x00\x00"

_ORIENTATION, _DETAILS_AT = int(ExifTags.Base.Orientation), int(ExifTags.Base.ExifOffset)
_MAIN = frozenset({_ORIENTATION, _DETAILS_AT})
_ORDERS = {
    head: (struct.Struct(f"{order}HHI4s"), struct.Struct(f"{order}H"), struct.Struct(f"{order}I"))
    for head, order in ((b"II*\x00", "<"), (b"MM\x00*", ">"))
}
# Types (TIFF 6.0, section 2): texts and bytes, and whole numbers of two and four bytes.
_BYTES, _SHORT, _WHOLE = frozenset({1, 2, 7}), 3, frozenset({3, 4, 13})
# Every text asked for has at most 20 characters.
_LONGEST_TEXT = 64


@dataclass(frozen=True, slots=True)
class ExifFacts:
    """``orientation`` is 1..8, 1 if it is not told or nonsense."""

    orientation: int = 1
    captured: CaptureTime | None = None


def read_exif(block: bytes) -> ExifFacts:
    """Read an EXIF block, with or without its ``Exif`` prefix; a whole TIFF file is one as well.

    Never raises: what is broken in it costs the date or the orientation, and the pixels are as good as without it.
    """
    start = len(EXIF_PREFIX) if block.startswith(EXIF_PREFIX) else 0
    structs = _ORDERS.get(block[start : start + 4])
    if structs is None or len(block) < start + 8:
        return ExifFacts()
    entry, short, long = structs
    directory = _Directories(memoryview(block)[start:], entry, short, long)
    main = directory.read(long.unpack_from(block, start + 4)[0], _MAIN)
    orientation = directory.number(main.get(_ORIENTATION))
    details = directory.read(directory.number(main.get(_DETAILS_AT)), CAPTURE_TAGS)
    captured = read_capture_time({tag: directory.text(found) for tag, found in details.items()}) if details else None
    return ExifFacts(orientation if 1 <= orientation <= 8 else 1, captured)


_Entry = tuple[int, int, bytes]
"""Type, number of values, and the four bytes that are the value or where it is."""


@dataclass(frozen=True, slots=True)
class _Directories:
    """The directories of one block. ``entry``, ``short`` and ``long`` are in its byte order."""

    body: memoryview
    entry: struct.Struct
    short: struct.Struct
    long: struct.Struct

    def read(self, at: int, wanted: Container[int]) -> dict[int, _Entry]:
        """Entries of the directory at ``at``, by tag, as far as it goes; none if ``at`` is 0 or beyond the end."""
        if at == 0 or at + 2 > len(self.body):
            return {}
        size = self.entry.size
        count = min(self.short.unpack_from(self.body, at)[0], (len(self.body) - at - 2) // size)
        entries = self.entry.iter_unpack(self.body[at + 2 : at + 2 + size * count])
        return {tag: (kind, number, field) for tag, kind, number, field in entries if tag in wanted}

    def number(self, found: _Entry | None) -> int:
        """The first value of an entry of whole numbers; 0 without one."""
        kind, count, field = found or (0, 0, b"")
        if not count or kind not in _WHOLE:
            return 0
        return int((self.short if kind == _SHORT else self.long).unpack_from(field)[0])

    def text(self, found: _Entry) -> str:
        """A text, as far as it is ASCII and ends; empty if the entry is none."""
        kind, count, field = found
        if kind not in _BYTES:
            return ""
        at = self.long.unpack(field)[0]
        value = field[:count] if count <= len(field) else bytes(self.body[at : at + min(count, _LONGEST_TEXT)])
        return value.partition(b"\x00")[0].decode("ascii", "replace")
