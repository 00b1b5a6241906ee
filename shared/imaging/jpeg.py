"""The header of a JPEG, read segment by segment.

By hand, as with EXIF: Pillow takes apart every application segment of a file it opens, though nothing in them but EXIF is
asked for, and EXIF twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from shared.imaging.exif import EXIF_PREFIX

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = 0xD9, 0xDA, 0xE1
# Encoders write ten or so. Each is work for the whole picture, however few bytes it has.
_MOST_SCANS = 100
_SCAN = b"\xff\xda"
# Pillow's names of colour models, by number of components.
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Size in pixels as stored, Pillow's name of the colour model, and the EXIF block, empty if there is none."""

    width: int
    height: int
    mode: str
    exif: bytes


def read_jpeg_header(data: bytes) -> JpegHeader:
    """What is said before the pixels. Raises ``ValueError`` if the size is not, or if there are too many scans."""
    exif = bytearray()
    frame = 0
    for marker, start, end in _segments(data):
        if marker == _APP1 and data.startswith(EXIF_PREFIX, start):
            # A block of more than 64 kB goes on in the next segment, behind another prefix.
            exif += data[start + len(EXIF_PREFIX) : end] if exif else data[start:end]
        elif marker in _START_OF_FRAME:
            if end - start < 6:
                raise ValueError("its frame header is too short")
            bits, height, width, components = struct.unpack_from(">BHHB", data, start)
            if bits != 8 or components not in _MODES:
                raise ValueError(f"{components} components of {bits} bits are not read")
            frame = marker
        elif marker == _START_OF_SCAN and (frame not in _SEQUENTIAL or data[start] < components):
            _refuse_scans(data, start)
    if not frame:
        raise ValueError("it has no frame header")
    return JpegHeader(width, height, _MODES[components], bytes(exif))


def _refuse_scans(data: bytes, start: int) -> None:
    """Raise ``ValueError`` for more scans than anybody needs. A picture that is whole after its first scan has no more:
    decoders stop there.
    """
    # In the pixels' own bytes 0xff is followed by 0, so that this counts scans and nothing else.
    scans = 1 + data.count(_SCAN, start)
    if scans > _MOST_SCANS:
        raise ValueError(f"it has {scans} scans, more than {_MOST_SCANS} are not read")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the content of each segment up to the first pixels; whatever lies between them is passed over,
    as decoders do.
    """
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == _END_OF_IMAGE:
            return
        if marker == 0xFF:
            at += 1
        elif marker == 0 or marker in _ALONE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            end = at + 2 + max(length, 2)
            if end > len(data):
                return
            yield marker, at + 4, end
            if marker == _START_OF_SCAN:
                return
            at = end
