"""Variants of formats that cameras, phones, scanners and editors write, beyond the plain ones of test_decode."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from shared.errors import ImageUnreadable, Reason
from shared.imaging.capture import CaptureTime, TimePrecision
from shared.imaging.decode import DecodedImage, decode_image
from shared.imaging.header import ImageFormat

Array = NDArray[np.uint8]
Encode = Callable[..., bytes]


def assert_decodes(data: bytes, expected: Array, tolerance: float, image_format: ImageFormat) -> DecodedImage:
    image = decode_image(data, max_pixels=1_000_000)
    assert image.format is image_format
    assert image.pixels.shape == expected.shape
    assert np.abs(image.pixels[:, :, ::-1].astype(np.int32) - expected).mean() <= tolerance
    return image


@pytest.fixture
def half_clear(textured: Array) -> Array:
    """320 x 240 RGBA, the lower half transparent."""
    layers = np.dstack([textured, np.full(textured.shape[:2], 255, np.uint8)])
    layers[120:, :, 3] = 0
    return layers


@pytest.fixture
def over_white(half_clear: Array) -> Array:
    """``half_clear`` as it is to be seen."""
    return np.where(half_clear[:, :, 3:] > 0, half_clear[:, :, :3], 255).astype(np.uint8)


@pytest.mark.parametrize("brand", [b"avif", b"mif1"])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_avif(brand: bytes, subsampling: str, textured: Array, encode: Encode) -> None:
    data = bytearray(encode(textured, "AVIF", quality=95, subsampling=subsampling))
    data[8:12] = brand
    assert_decodes(bytes(data), textured, 3, ImageFormat.AVIF)


def test_avif_in_grey_and_with_alpha(textured: Array, half_clear: Array, over_white: Array, encode: Encode) -> None:
    grey = Image.fromarray(textured).convert("L")
    assert_decodes(encode(grey, "AVIF", quality=95), np.asarray(grey.convert("RGB")), 3, ImageFormat.AVIF)
    assert_decodes(encode(Image.fromarray(half_clear), "AVIF", quality=95), over_white, 3, ImageFormat.AVIF)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["AVIF", "HEIC"])
def test_containers_that_turn_their_image(image_format: str, orientation: int, corners: Array, encode: Encode) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if image_format == "AVIF":
        data = encode(corners, "AVIF", quality=95, exif=exif)
    else:
        # This library reads the orientation from here and writes it into the container.
        heif = pillow_heif.from_pillow(Image.fromarray(corners))
        heif.info["exif"] = exif.tobytes()
        buffer = io.BytesIO()
        heif.save(buffer, quality=95)
        data = buffer.getvalue()
    stored = Image.fromarray(corners)
    stored.getexif()[ExifTags.Base.Orientation] = orientation
    assert_decodes(data, np.asarray(ImageOps.exif_transpose(stored)), 6, ImageFormat(image_format))


@pytest.mark.parametrize("image_format", ["AVIF", "HEIC"])
def test_the_containers_say_when(image_format: str, corners: Array, encode: Encode) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "somebody"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {ExifTags.Base.DateTimeOriginal: "2021:07:04 10:11:12", ExifTags.Base.OffsetTimeOriginal: "-03:30"}
    )
    if image_format == "AVIF":
        data = encode(corners, "AVIF", exif=exif)
    else:
        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(corners)).save(buffer, exif=exif.tobytes())
        data = buffer.getvalue()
    expected = CaptureTime(
        datetime(2021, 7, 4, 13, 41, 12, tzinfo=UTC), TimePrecision.SECOND, -timedelta(hours=3, minutes=30)
    )
    assert decode_image(data, max_pixels=10**6).captured == expected


@pytest.mark.parametrize("image_format", ["AVIF", "HEIC"])
def test_the_pixel_limit_holds_before_decoding(image_format: str, corners: Array, encode: Encode) -> None:
    if image_format == "AVIF":
        data = encode(corners, "AVIF")
    else:
        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(corners)).save(buffer)
        data = buffer.getvalue()
    with pytest.raises(ImageUnreadable) as refused:
        decode_image(data, max_pixels=96 * 64 - 1)
    assert refused.value.reason is Reason.IMAGE_TOO_LARGE
    assert refused.value.metadata == {"width": "96", "height": "64", "max_pixels": str(96 * 64 - 1)}


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "AVIF"])
def test_first_frame_of_a_moving_picture(image_format: str, textured: Array, encode: Encode) -> None:
    second = Image.new("RGB", (320, 240), "red")
    options: dict[str, object] = {"lossless": True} if image_format == "WEBP" else {"quality": 95}
    data = encode(textured, image_format, save_all=True, append_images=[second], **options)
    assert_decodes(data, textured, 3, ImageFormat(image_format))


def test_progressive_grey_and_cmyk(textured: Array, encode: Encode) -> None:
    grey = Image.fromarray(textured).convert("L")
    data = encode(grey, "JPEG", progressive=True, quality=95)
    assert_decodes(data, np.asarray(grey.convert("RGB")), 3, ImageFormat.JPEG)
    cmyk = encode(Image.fromarray(textured).convert("CMYK"), "JPEG", progressive=True, quality=95)
    assert_decodes(cmyk, textured, 5, ImageFormat.JPEG)


def test_a_jpeg_with_padding_and_rubbish_between_its_segments(corners: Array, encode: Encode) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    data = encode(corners, "JPEG", quality=95, exif=exif)
    padded = data[:2] + b"\xff" * 5 + data[2:20] + data[20:]
    assert_decodes(padded, np.ascontiguousarray(corners[::-1, ::-1]), 6, ImageFormat.JPEG)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bits_in_colour_and_with_alpha(
    extension: str, textured: Array, half_clear: Array, over_white: Array
) -> None:
    found = ImageFormat(extension[1:].upper())
    deep = cv2.cvtColor(textured, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
    assert_decodes(cv2.imencode(extension, deep)[1].tobytes(), textured, 0.5, found)
    clear = cv2.cvtColor(half_clear, cv2.COLOR_RGBA2BGRA).astype(np.uint16) * 257
    assert_decodes(cv2.imencode(extension, clear)[1].tobytes(), over_white, 0.5, found)


def test_interlaced_png(textured: Array) -> None:
    assert_decodes(interlace(textured), textured, 0, ImageFormat.PNG)


def test_palette_and_grey_with_alpha(half_clear: Array, over_white: Array, encode: Encode) -> None:
    grey = Image.fromarray(half_clear).convert("LA")
    expected = np.where(half_clear[:, :, 3:] > 0, np.asarray(grey)[:, :, :1], 255).astype(np.uint8)
    assert_decodes(encode(grey, "PNG"), np.repeat(expected, 3, axis=2), 0, ImageFormat.PNG)
    palette = Image.fromarray(over_white).quantize(64)
    shown = np.asarray(palette.convert("RGB"))
    for image_format in ("PNG", "BMP", "TIFF", "GIF"):
        assert_decodes(encode(palette, image_format), shown, 0, ImageFormat(image_format))


@pytest.mark.parametrize("quality", [90, None])
def test_webp_with_alpha(quality: int | None, half_clear: Array, over_white: Array, encode: Encode) -> None:
    options = {"quality": quality} if quality else {"lossless": True}
    assert_decodes(encode(Image.fromarray(half_clear), "WEBP", **options), over_white, 4, ImageFormat.WEBP)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"compression": "jpeg", "quality": 95}, 3),
        ({"compression": "tiff_adobe_deflate"}, 0),
        ({"compression": "packbits"}, 0),
        ({"save_all": True, "append_images": [Image.new("RGB", (50, 50), "red")]}, 0),
    ],
)
def test_tiffs(options: dict[str, object], tolerance: float, textured: Array, encode: Encode) -> None:
    assert_decodes(encode(textured, "TIFF", **options), textured, tolerance, ImageFormat.TIFF)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiled_tiff(order: Literal["<", ">"], textured: Array) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, textured, tile=(64, 64), byteorder=order, photometric="rgb")
    assert_decodes(buffer.getvalue(), textured, 0, ImageFormat.TIFF)


@pytest.mark.parametrize("image_format", ["AVIF", "HEIC"])
def test_a_container_that_breaks_off_is_refused(image_format: str, textured: Array, encode: Encode) -> None:
    if image_format == "AVIF":
        data = encode(textured, "AVIF", quality=90)
    else:
        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(textured)).save(buffer, quality=90)
        data = buffer.getvalue()
    for share in (0.05, 0.5, 0.9):
        with pytest.raises(ImageUnreadable) as refused:
            decode_image(data[: int(len(data) * share)], max_pixels=10**6)
        assert refused.value.reason is Reason.IMAGE_UNREADABLE


def interlace(pixels: Array) -> bytes:
    """An Adam7 PNG (ISO/IEC 15948, 8.2) of RGB pixels; neither Pillow nor OpenCV writes one."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for top, left, down, across in passes for row in pixels[top::down, left::across]]
    lines = b"".join(b"\x00" + row.tobytes() for row in rows if row.size)
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
