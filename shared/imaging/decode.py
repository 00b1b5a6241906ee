"""Photo bytes to upright pixels.

OpenCV decodes what it decodes exactly (JPEG, PNG and WebP in grey, palette or RGB), because it is the fastest
and lets go of the GIL; Pillow does the rest (CMYK, alpha, TIFF, BMP, GIF, HEIC, AVIF, and files that break off).
Both end in the same place: BGR, 8 bits, EXIF orientation applied, transparency over white.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from shared.config import ImageSettings
from shared.errors import ImageUnreadable
from shared.imaging.capture import CaptureTime
from shared.imaging.header import ImageFormat, ImageHeader, open_with_pillow, png_breaks_off, read_header

Pixels = NDArray[np.uint8]

_OPENCV_FORMATS = frozenset({ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP})
_OPENCV_MODES = frozenset({"1", "L", "P", "RGB", "YCbCr", "I;16", "I;16B", "I"})
_END_OF_JPEG = b"\xff\xd9"
# Columns and rows of the sample that the difference hash is made of: 16 x 16 for each cell of its miniature.
_HASH_SAMPLES = (144, 128)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A photo, upright.

    ``pixels`` is (height, width, 3) uint8, BGR, C-contiguous; ``width`` and ``height`` are those of the
    upright image and every coordinate in this house refers to it. ``orientation`` is the EXIF value that was
    applied (1..8). ``difference_hash`` is unsigned, 64 bits; near-duplicate photos differ in few bits.
    """

    pixels: Pixels
    width: int
    height: int
    format: ImageFormat
    orientation: int
    captured: CaptureTime | None
    difference_hash: int


def decode_image(data: bytes, *, max_pixels: int, min_side: int = 1) -> DecodedImage:
    """Decode ``data`` (JPEG, PNG, WebP, BMP, TIFF, the first frame of a GIF, HEIC, AVIF) into an upright BGR image.

    A file that breaks off is read as far as it goes; what is missing is flat. Raises :class:`ImageUnreadable`
    with reason IMAGE_TOO_LARGE before decoding when the header tells more than ``max_pixels``, or
    IMAGE_UNREADABLE with what was seen.
    """
    header = read_header(data, max_pixels=max_pixels, min_side=min_side)
    try:
        pixels = _decode_upright(data, header)
    except ImageUnreadable:
        raise
    except Exception as error:
        # As with headers: a decoder fed hostile bytes raises anything, and all of it means that the image cannot be
        # read.
        raise _unreadable(header, str(error)) from error
    if pixels.shape[0] * pixels.shape[1] != header.width * header.height:
        raise _unreadable(header, f"decoded to {pixels.shape[1]} x {pixels.shape[0]}")
    return DecodedImage(
        pixels=pixels,
        width=pixels.shape[1],
        height=pixels.shape[0],
        format=header.format,
        orientation=header.orientation,
        captured=header.captured,
        difference_hash=difference_hash(pixels),
    )


def difference_hash(pixels: Pixels) -> int:
    """64-bit difference hash of a BGR image: is each pixel of a 9 x 8 grey miniature brighter than its right
    neighbour.

    Row by row, the first comparison in the highest bit (N. Krawetz, "Kind of like that", 2013).
    """
    # Some hundred samples, each of four pixels, make the mean of a cell as well as the whole photo does: of the 64 bits
    # 1.4 come out otherwise, and 1.6 between a photo and a smaller copy.
    height, width = pixels.shape[:2]
    size = (min(width, _HASH_SAMPLES[0]), min(height, _HASH_SAMPLES[1]))
    sample = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(cv2.resize(sample, (9, 8), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    return int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "big")


class ImageDecoder:
    """Decodes in a pool of threads, within the limits of :class:`ImageSettings`."""

    def __init__(self, executor: Executor, settings: ImageSettings) -> None:
        self._executor = executor
        self._settings = settings

    async def decode(self, data: bytes) -> DecodedImage:
        """As :func:`decode_image`. Also raises :class:`ImageUnreadable` when it takes longer than
        ``decode_timeout_s``, not counting the wait for a thread.

        A thread cannot be stopped: after a timeout it ends by itself and its image is dropped; a decode still
        waiting for a thread is taken back.
        """
        limit = self._settings.decode_timeout_s
        loop = asyncio.get_running_loop()
        begun: list[float] = []
        decoding = loop.run_in_executor(self._executor, self._decode, data, begun)
        try:
            while True:
                left = limit - (time.monotonic() - begun[0]) if begun else limit
                if left <= 0:
                    break
                await asyncio.wait((decoding,), timeout=left)
                if decoding.done():
                    return decoding.result()
        finally:
            decoding.cancel()
        raise ImageUnreadable(
            f"decoding took longer than {limit:g} s",
            metadata={"bytes": str(len(data)), "decode_timeout_s": f"{limit:g}"},
        )

    def _decode(self, data: bytes, begun: list[float]) -> DecodedImage:
        begun.append(time.monotonic())
        return decode_image(data, max_pixels=self._settings.max_pixels, min_side=self._settings.min_side)


def _decode_upright(data: bytes, header: ImageHeader) -> Pixels:
    if _is_for_opencv(data, header):
        pixels = _decode_with_opencv(data)
        if pixels is None and header.format is ImageFormat.JPEG:
            # libjpeg fills what is missing with grey as soon as the end marker is there.
            pixels = _refuse_flat(_decode_with_opencv(data + _END_OF_JPEG), header)
        if pixels is not None:
            return turn_upright(pixels, header.orientation)
    if header.format is ImageFormat.HEIC:
        return _to_bgr(pillow_heif.open_heif(data).to_pillow())
    image = open_with_pillow(data, header.format)
    try:
        image.load()
        pixels = _to_bgr(image)
    except OSError:
        # Pillow keeps what it decoded before the file broke off, but offers it under no public name.
        pixels = _refuse_flat(_to_bgr(image._new(image.im)), header)
        return turn_upright(pixels, header.orientation)
    # Pillow turns a TIFF while loading it; every other format is left to us.
    return pixels if header.format is ImageFormat.TIFF else turn_upright(pixels, header.orientation)


def _is_for_opencv(data: bytes, header: ImageHeader) -> bool:
    if header.format not in _OPENCV_FORMATS or header.mode not in _OPENCV_MODES or header.has_alpha:
        return False
    # OpenCV allocates what a PNG chunk claims, up to 2 GB, before it looks whether the bytes are there.
    return header.format is not ImageFormat.PNG or not png_breaks_off(data)


def _decode_with_opencv(data: bytes) -> Pixels | None:
    # The stub has no None, which is what OpenCV answers when it cannot read an image.
    decode: Callable[[NDArray[np.uint8], int], Pixels | None] = cv2.imdecode  # type: ignore[assignment]
    return decode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR | cv2.IMREAD_IGNORE_ORIENTATION)


def _to_bgr(image: Image.Image) -> Pixels:
    """Any Pillow image to (H, W, 3) BGR: 16 and 32 bits scaled to 8, float read as 0..1, transparency over white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        scaled = values * 255.0 if image.mode == "F" else values / 257.0
        grey = np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image.alpha_composite(rgba)
    rgb = np.asarray(image.convert("RGB"))
    return np.ascontiguousarray(rgb[:, :, ::-1])


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (1..8, CIPA DC-008 4.6.5) to stored pixels; the result is C-contiguous."""
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return pixels
    return np.ascontiguousarray(turned, dtype=np.uint8)


def _refuse_flat(pixels: Pixels | None, header: ImageHeader) -> Pixels:
    if pixels is None or int(pixels.min()) == int(pixels.max()):
        raise _unreadable(header, "it breaks off before the first pixels")
    return pixels


def _unreadable(header: ImageHeader, detail: str) -> ImageUnreadable:
    return ImageUnreadable(
        f"the {header.format} of {header.width} x {header.height} pixels cannot be decoded: {detail}",
        metadata={"format": header.format.value, "width": str(header.width), "height": str(header.height)},
    )
