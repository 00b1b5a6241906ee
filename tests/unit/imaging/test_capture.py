"""Capture times from EXIF: what is known, and how precisely."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from shared.imaging.capture import CaptureTime, TimePrecision, parse_capture_time
from shared.imaging.decode import decode_image

Encode = Callable[..., bytes]
DAY = datetime(2021, 7, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "offset", "expected"),
    [
        (
            "2021:07:04 10:11:12",
            "",
            (datetime(2021, 7, 4, 10, 11, 12, tzinfo=UTC), TimePrecision.SECOND, None),
        ),
        (
            "2021:07:04 10:11:12",
            "+02:00",
            (datetime(2021, 7, 4, 8, 11, 12, tzinfo=UTC), TimePrecision.SECOND, timedelta(hours=2)),
        ),
        (
            "2021:07:04 23:00:00",
            "-05:30",
            (datetime(2021, 7, 5, 4, 30, tzinfo=UTC), TimePrecision.SECOND, -timedelta(hours=5, minutes=30)),
        ),
        ("2021:07:04", "", (DAY, TimePrecision.DAY, None)),
        ("2021:07:04   :  :  ", "", (DAY, TimePrecision.DAY, None)),
        ("2021:07:00 00:00:00", "", (datetime(2021, 7, 1, tzinfo=UTC), TimePrecision.MONTH, None)),
        ("2021:00:00 00:00:00", "", (datetime(2021, 1, 1, tzinfo=UTC), TimePrecision.YEAR, None)),
        ("2021:  :     :  :  ", "", (datetime(2021, 1, 1, tzinfo=UTC), TimePrecision.YEAR, None)),
        (
            "2021-07-04T10:11:12",
            "",
            (datetime(2021, 7, 4, 10, 11, 12, tzinfo=UTC), TimePrecision.SECOND, None),
        ),
        (
            "2016:12:31 23:59:60",
            "",
            (datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC), TimePrecision.SECOND, None),
        ),
        (
            "2021:07:04 10:11:12",
            "+99:00",
            (datetime(2021, 7, 4, 10, 11, 12, tzinfo=UTC), TimePrecision.SECOND, None),
        ),
    ],
)
def test_what_is_known(text: str, offset: str, expected: tuple[datetime, TimePrecision, timedelta | None]) -> None:
    assert parse_capture_time(text, offset) == CaptureTime(*expected)


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("", ""),
        ("0000:00:00 00:00:00", ""),
        ("    :  :     :  :  ", ""),
        ("yesterday", ""),
        ("2021:13:04 10:11:12", ""),
        ("2021:02:30 10:11:12", ""),
        ("2021:07:04 25:11:12", ""),
        ("0001:01:01 00:00:00", "+02:00"),
    ],
)
def test_what_is_not(text: str, offset: str) -> None:
    assert parse_capture_time(text, offset) is None


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_read_from_every_format_that_has_exif(image_format: str, corners: NDArray[np.uint8], encode: Encode) -> None:
    made = Image.Exif()
    made[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2021:07:04 10:11:12",
        ExifTags.Base.OffsetTimeOriginal: "+01:00",
    }
    # Pillow writes the inner directory of a TIFF only if it was read from somewhere.
    exif = Image.Exif()
    exif.load(made.tobytes())
    captured = decode_image(encode(corners, image_format, exif=exif), max_pixels=10**6).captured
    assert captured == CaptureTime(
        datetime(2021, 7, 4, 9, 11, 12, tzinfo=UTC), TimePrecision.SECOND, timedelta(hours=1)
    )


def test_digitised_stands_in_and_the_time_of_the_last_save_does_not(corners: NDArray[np.uint8], encode: Encode) -> None:
    saved = Image.Exif()
    saved[ExifTags.Base.DateTime] = "2023:01:01 00:00:00"
    assert decode_image(encode(corners, "JPEG", exif=saved), max_pixels=10**6).captured is None
    scanned = Image.Exif()
    scanned.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeDigitized] = "1998:03:02 12:00:00"
    captured = decode_image(encode(corners, "JPEG", exif=scanned), max_pixels=10**6).captured
    assert captured is not None
    assert captured.at == datetime(1998, 3, 2, 12, tzinfo=UTC)


def test_broken_exif_costs_the_date_only(corners: NDArray[np.uint8], encode: Encode) -> None:
    image = decode_image(encode(corners, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"), max_pixels=10**6)
    assert image.captured is None
    assert image.width == 96
