"""EXIF blocks, whole and hostile: what is in them is read, what is broken costs nothing but itself."""

from __future__ import annotations

import struct
import tracemalloc
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import ExifTags, Image

from shared.imaging.capture import CaptureTime, TimePrecision
from shared.imaging.exif import ExifFacts, read_exif

TAGS = ExifTags.Base
WHEN = b"2021:07:04 10:11:12\x00"
SEEN = CaptureTime(datetime(2021, 7, 4, 8, 11, 12, tzinfo=UTC), TimePrecision.SECOND, timedelta(hours=2))


def entry(tag: int, kind: int, count: int, value: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}HHII", tag, kind, count, value)


def block(main: list[bytes], details: list[bytes] = [], *, tail: bytes = b"", order: str = "<") -> bytes:  # noqa: B006
    """A block whose main directory is at 8, that of details at 200, and what follows at 400."""

    def directory(entries: list[bytes]) -> bytes:
        return struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)

    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(f"{order}I", 8)
    return ((head + directory(main)).ljust(200, b"\x00") + directory(details)).ljust(400, b"\x00") + tail


@pytest.mark.parametrize("prefix", [b"", b"Exif\x00\x00"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_with_and_without_prefix(order: str, prefix: bytes) -> None:
    upright = entry(TAGS.Orientation, 4, 1, 6, order)
    details = [
        entry(TAGS.DateTimeOriginal, 2, 20, 400, order),
        entry(TAGS.OffsetTimeOriginal, 2, 7, 420, order),
    ]
    made = block([upright, entry(TAGS.ExifOffset, 4, 1, 200, order)], details, tail=WHEN + b"+02:00\x00", order=order)
    assert read_exif(prefix + made) == ExifFacts(6, SEEN)


def test_what_pillow_writes() -> None:
    exif = Image.Exif()
    exif[TAGS.Orientation] = 8
    exif[TAGS.Make] = "somebody"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {TAGS.DateTimeOriginal: WHEN[:-1].decode(), TAGS.OffsetTimeOriginal: "+02:00", TAGS.FNumber: 2.8}
    )
    assert read_exif(exif.tobytes()) == ExifFacts(8, SEEN)


@pytest.mark.parametrize(
    "made",
    [
        b"",
        b"Exif\x00\x00",
        b"II*\x00",
        b"II*\x00\xff\xff\xff\xff",
        b"II*\x00\x08\x00\x00\x00\xff\xff",
        b"PK\x03\x04 is no TIFF",
        block([entry(TAGS.Orientation, 3, 1, 9)]),
        block([entry(TAGS.Orientation, 3, 0, 6)]),
        block([entry(TAGS.Orientation, 5, 1, 6)]),
        block([entry(TAGS.Orientation, 99, 1, 6)]),
        block([entry(TAGS.ExifOffset, 4, 1, 2**32 - 1)]),
        block([entry(TAGS.ExifOffset, 4, 1, 8)]),
        block([entry(TAGS.ExifOffset, 4, 1, 200)], [entry(TAGS.ExifOffset, 4, 1, 200)]),
        block([entry(TAGS.ExifOffset, 4, 1, 200)], [entry(TAGS.DateTimeOriginal, 2, 20, 2**32 - 1)]),
        block([entry(TAGS.ExifOffset, 4, 1, 200)], [entry(TAGS.DateTimeOriginal, 12, 20, 400)], tail=WHEN),
        block([entry(TAGS.ExifOffset, 4, 1, 200)], [entry(TAGS.DateTimeOriginal, 2, 20, 400)], tail=b"\xff" * 20),
    ],
)
def test_broken_blocks_tell_nothing(made: bytes) -> None:
    assert read_exif(made) == ExifFacts()


def test_one_broken_entry_costs_only_itself() -> None:
    details = [entry(TAGS.DateTimeOriginal, 2, 20, 9000), entry(TAGS.DateTimeDigitized, 2, 20, 400)]
    made = block([entry(TAGS.Orientation, 3, 1, 5), entry(TAGS.ExifOffset, 4, 1, 200)], details, tail=WHEN)
    found = read_exif(made)
    assert found.orientation == 5
    assert found.captured is not None
    assert found.captured.at == datetime(2021, 7, 4, 10, 11, 12, tzinfo=UTC)


def test_entries_that_share_their_bytes_are_not_copied() -> None:
    entries = [entry(tag, 7, 4_000_000, 8) for tag in range(0x9000, 0x9000 + 20_000)]
    made = b"II*\x00" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4_000_000)
    tracemalloc.start()
    assert read_exif(made) == ExifFacts()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_any_damage_is_survived() -> None:
    random = np.random.default_rng(4)
    details = [entry(TAGS.DateTimeOriginal, 2, 20, 400), entry(TAGS.OffsetTimeOriginal, 2, 7, 420)]
    whole = block([entry(TAGS.ExifOffset, 4, 1, 200)], details, tail=WHEN + b"+02:00\x00")
    orientations = set()
    for _ in range(3000):
        damaged = bytearray(whole[: int(random.integers(0, len(whole) + 1))])
        for at in random.integers(0, max(len(damaged), 1), 3):
            if damaged:
                damaged[at] = int(random.integers(0, 256))
        orientations.add(read_exif(bytes(damaged)).orientation)
    assert orientations <= set(range(1, 9))
