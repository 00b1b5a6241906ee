"""What an image says about itself, read without decoding a single pixel.

The format is told by its first bytes, never by a file name, and only the formats listed here are opened at all:
Pillow's own ``Image.open`` would try every plugin it has, and its size check raises without saying the size.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pillow_heif
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from shared.errors import ImageUnreadable, Reason
from shared.imaging.capture import CaptureTime
from shared.imaging.exif import read_exif
from shared.imaging.jpeg import read_jpeg_header

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# ISO/IEC 23008-12 brands of a HEVC-coded still image or sequence.
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
# The same container with AV1 in it.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})


class ImageFormat(StrEnum):
    """The formats this house reads."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"
    HEIC = "HEIC"
    AVIF = "AVIF"


_PLUGINS: dict[ImageFormat, type[ImageFile.ImageFile]] = {
    ImageFormat.JPEG: JpegImagePlugin.JpegImageFile,
    ImageFormat.PNG: PngImagePlugin.PngImageFile,
    ImageFormat.WEBP: WebPImagePlugin.WebPImageFile,
    ImageFormat.GIF: GifImagePlugin.GifImageFile,
    ImageFormat.BMP: BmpImagePlugin.BmpImageFile,
    ImageFormat.TIFF: TiffImagePlugin.TiffImageFile,
    ImageFormat.AVIF: AvifImagePlugin.AvifImageFile,
}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size and colour model as stored, before orientation is applied.

    ``width`` and ``height`` are in pixels of the stored image; ``orientation`` is EXIF's 1..8 (for HEIC and AVIF the
    container's word counts, not EXIF's: 1 for HEIC, whose decoder turns the image itself); ``mode`` is Pillow's name of
    the colour model; ``has_alpha`` covers palettes with a transparent colour.
    """

    format: ImageFormat
    width: int
    height: int
    mode: str
    has_alpha: bool
    orientation: int
    captured: CaptureTime | None


def sniff_format(data: bytes) -> ImageFormat | None:
    """The format told by the first bytes; None if it is not one this house reads."""
    if data.startswith(b"\xff\xd8\xff"):
        return ImageFormat.JPEG
    if data.startswith(PNG_SIGNATURE):
        return ImageFormat.PNG
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if data.startswith((b"GIF87a", b"GIF89a")):
        return ImageFormat.GIF
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return ImageFormat.TIFF
    if data[4:8] == b"ftyp":
        return _sniff_brand(data)
    if data.startswith(b"BM"):
        return ImageFormat.BMP
    return None


def read_header(data: bytes, *, max_pixels: int, min_side: int) -> ImageHeader:
    """Read format, size, colour model and EXIF of ``data``.

    Raises :class:`ImageUnreadable`: IMAGE_UNREADABLE if ``data`` is empty, not an image of a known format,
    its header is broken, or a side is shorter than ``min_side``; IMAGE_TOO_LARGE (metadata width, height,
    max_pixels) if it has more than ``max_pixels`` pixels.
    """
    if not data:
        raise ImageUnreadable("the image is empty (0 bytes)", metadata={"bytes": "0"})
    image_format = sniff_format(data)
    if image_format is None:
        raise ImageUnreadable(
            f"not an image of a known format: {len(data)} bytes beginning with {data[:8].hex(' ')}",
            metadata={"bytes": str(len(data)), "first_bytes": data[:16].hex()},
        )
    try:
        # libwebp allocates its canvas when the file is opened, so the size must be known before.
        if image_format is ImageFormat.WEBP:
            _refuse_size(_webp_size(data), max_pixels, min_side)
        header = _READERS.get(image_format, _pillow_header)(data, image_format)
    except ImageUnreadable:
        raise
    except Exception as error:
        # Image parsers raise whatever a hostile header leads them into (struct, value, index, type, memory
        # errors ...), and for the caller all of it means the same: this header cannot be read.
        raise ImageUnreadable(
            f"broken {image_format} header in {len(data)} bytes: {error}",
            metadata={"format": image_format.value, "bytes": str(len(data))},
        ) from error
    _refuse_size((header.width, header.height), max_pixels, min_side)
    return header


def open_with_pillow(data: bytes, image_format: ImageFormat) -> ImageFile.ImageFile:
    """Open ``data`` with the one plugin for ``image_format``; no pixel is decoded. Raises what the plugin raises."""
    return _PLUGINS[image_format](io.BytesIO(data))


def _sniff_brand(data: bytes) -> ImageFormat | None:
    """What is in an ISO base media file, by its brands: the first, or among those it is said to be compatible with."""
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, size, 4))}
    if data[8:12] in _HEIF_BRANDS - {b"mif1", b"msf1"}:
        return ImageFormat.HEIC
    if brands & _AVIF_BRANDS:
        return ImageFormat.AVIF
    return ImageFormat.HEIC if brands & _HEIF_BRANDS else None


def _pillow_header(data: bytes, image_format: ImageFormat) -> ImageHeader:
    image = open_with_pillow(data, image_format)
    has_alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
    block = data if image_format is ImageFormat.TIFF else image.info.get("exif", b"")
    if not block and image_format is ImageFormat.PNG:
        # Pillow finds an eXIf chunk after the pixels only by decoding them.
        block = _png_chunk(data, b"eXIf")
    facts = read_exif(block)
    return ImageHeader(
        image_format, image.width, image.height, image.mode, has_alpha, facts.orientation, facts.captured
    )


def _jpeg_header(data: bytes, image_format: ImageFormat) -> ImageHeader:
    header = read_jpeg_header(data)
    facts = read_exif(header.exif)
    return ImageHeader(image_format, header.width, header.height, header.mode, False, facts.orientation, facts.captured)


def _heic_header(data: bytes, image_format: ImageFormat) -> ImageHeader:
    image = pillow_heif.open_heif(data)
    width, height = image.size
    captured = read_exif(image.info.get("exif") or b"").captured
    return ImageHeader(image_format, width, height, image.mode, image.mode in _ALPHA_MODES, 1, captured)


_READERS: Mapping[ImageFormat, Callable[[bytes, ImageFormat], ImageHeader]] = {
    ImageFormat.JPEG: _jpeg_header,
    ImageFormat.HEIC: _heic_header,
}


def png_breaks_off(data: bytes) -> bool:
    """Whether a chunk of the PNG claims more bytes than there are, or its end chunk is missing."""
    chunks = list(_png_chunks(data))
    return not chunks or chunks[-1][0] != b"IEND" or chunks[-1][2] is None


def _png_chunk(data: bytes, name: bytes) -> bytes:
    for kind, start, length in _png_chunks(data):
        if kind == name and length is not None:
            return data[start : start + length]
    return b""


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int | None]]:
    """Name, offset of the content and its length, None for a length that goes beyond the end; the last chunk
    is IEND if all is well.
    """
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        whole = at + 12 + length <= len(data)
        yield kind, at + 8, length if whole else None
        if not whole or kind == b"IEND":
            return
        at += 12 + length


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas (RFC 9649, sections 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(f"unknown WebP chunk {kind!r}")


def _refuse_size(size: tuple[int, int], max_pixels: int, min_side: int) -> None:
    width, height = size
    seen = {"width": str(width), "height": str(height)}
    if width * height > max_pixels:
        raise ImageUnreadable(
            f"the image has {width} x {height} pixels, more than {max_pixels} are not read",
            reason=Reason.IMAGE_TOO_LARGE,
            metadata={**seen, "max_pixels": str(max_pixels)},
        )
    if min(width, height) < min_side:
        raise ImageUnreadable(
            f"the image has {width} x {height} pixels, a side must have at least {min_side}",
            metadata={**seen, "min_side": str(min_side)},
        )
