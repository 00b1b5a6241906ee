"""Photos as the world has them, made here with Pillow and read back."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from shared.config import ImageSettings
from shared.errors import ImageUnreadable, Reason
from shared.imaging.decode import DecodedImage, ImageDecoder, decode_image
from shared.imaging.header import ImageFormat

Array = NDArray[np.uint8]
Encode = Callable[..., bytes]
LIMIT = 60_000_000


def decode(data: bytes) -> DecodedImage:
    image = decode_image(data, max_pixels=LIMIT)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (image.height, image.width, 3)
    assert image.pixels.flags["C_CONTIGUOUS"]
    return image


def outcome_of(data: bytes) -> Reason | None:
    """Why ``data`` is refused, None if it is read."""
    try:
        decode_image(data, max_pixels=1_000_000)
    except ImageUnreadable as error:
        return error.reason
    return None


def rgb(image: DecodedImage) -> NDArray[np.int32]:
    return image.pixels[:, :, ::-1].astype(np.int32)


def assert_close(image: DecodedImage, expected: Array, tolerance: float) -> None:
    assert image.pixels.shape == expected.shape
    assert np.abs(rgb(image) - expected).mean() <= tolerance


@pytest.mark.parametrize(
    ("image_format", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 3),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 4),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("GIF", {}, 12),
    ],
)
def test_formats(
    image_format: str, options: dict[str, object], tolerance: float, textured: Array, encode: Encode
) -> None:
    image = decode(encode(textured, image_format, **options))
    assert image.format is ImageFormat(image_format)
    assert image.orientation == 1
    assert_close(image, textured, tolerance)


def test_heic(textured: Array) -> None:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(textured)).save(buffer, quality=95)
    image = decode(buffer.getvalue())
    assert image.format is ImageFormat.HEIC
    assert_close(image, textured, 6)


def test_first_frame_of_a_gif(encode: Encode) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    image = decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert rgb(image)[15, 20].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_comes_out_upright(
    orientation: int, image_format: str, corners: Array, encode: Encode
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(corners)
    data = encode(stored, image_format, exif=exif, **({"lossless": True} if image_format == "WEBP" else {}))
    stored.getexif()[ExifTags.Base.Orientation] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    image = decode(data)
    assert image.orientation == orientation
    assert (image.width, image.height) == (upright.shape[1], upright.shape[0])
    assert_close(image, upright, 3)


def test_orientation_in_a_png_whose_exif_follows_the_pixels(corners: Array, encode: Encode) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    block = exif.tobytes().removeprefix(b"Exif\x00\x00")
    body = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + body + struct.pack(">I", zlib.crc32(body))
    data = encode(corners, "PNG")
    end = data.index(b"IEND") - 4
    image = decode(data[:end] + chunk + data[end:])
    assert image.orientation == 6
    assert (image.width, image.height) == (64, 96)


@pytest.mark.parametrize("orientation", [0, 9, 4000])
def test_nonsense_orientation_is_none(orientation: int, corners: Array, encode: Encode) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert decode(encode(corners, "JPEG", exif=exif)).orientation == 1


def test_cmyk(textured: Array, encode: Encode) -> None:
    for image_format in ("JPEG", "TIFF"):
        image = decode(encode(Image.fromarray(textured).convert("CMYK"), image_format))
        assert_close(image, textured, 5)


def test_grey(textured: Array, encode: Encode) -> None:
    grey = Image.fromarray(textured).convert("L")
    expected = np.asarray(grey.convert("RGB"))
    for image_format in ("JPEG", "PNG", "TIFF", "BMP"):
        assert_close(decode(encode(grey, image_format)), expected, 3)


def test_one_bit(encode: Encode) -> None:
    halves = np.zeros((20, 40), np.uint8)
    halves[:, 20:] = 255
    for image_format in ("PNG", "TIFF", "BMP"):
        image = decode(encode(Image.fromarray(halves).convert("1"), image_format))
        assert rgb(image)[10, 5].tolist() == [0, 0, 0]
        assert rgb(image)[10, 35].tolist() == [255, 255, 255]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(image_format: str, encode: Encode) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (32, 1))
    image = decode(encode(Image.fromarray(ramp), image_format))
    assert np.abs(rgb(image)[16, :, 0] - np.arange(256)).max() <= 1


def test_float_tiff(encode: Encode) -> None:
    ramp = np.tile(np.linspace(0, 1, 256).astype(np.float32), (32, 1))
    image = decode(encode(Image.fromarray(ramp), "TIFF"))
    assert np.abs(rgb(image)[16, :, 0] - np.arange(256)).max() <= 1


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_white(image_format: str, encode: Encode) -> None:
    layers = np.zeros((32, 32, 4), np.uint8)
    layers[:, :, 0] = 200
    layers[:16, :, 3] = 255
    data = encode(Image.fromarray(layers), image_format, **({"lossless": True} if image_format == "WEBP" else {}))
    image = decode(data)
    assert rgb(image)[4, 4].tolist() == [200, 0, 0]
    assert rgb(image)[28, 4].tolist() == [255, 255, 255]


def test_transparent_palette(encode: Encode) -> None:
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 250, 0, 0])
    palette.paste(1, (0, 0, 32, 16))
    for image_format in ("PNG", "GIF"):
        image = decode(encode(palette, image_format, transparency=0))
        assert rgb(image)[4, 4].tolist() == [250, 0, 0]
        assert rgb(image)[28, 4].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("image_format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("TIFF", {}), ("GIF", {})],
)
def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(
    image_format: str, options: dict[str, object], textured: Array, encode: Encode
) -> None:
    data = encode(textured, image_format, **options)
    image = decode(data[: len(data) * 7 // 10])
    assert (image.width, image.height) == (320, 240)
    assert np.abs(rgb(image)[:60] - textured[:60]).mean() <= 15


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_every_shorter_file_is_read_or_refused(image_format: str, corners: Array, encode: Encode) -> None:
    data = encode(corners, image_format)
    outcomes = set()
    for end in range(0, len(data), max(1, len(data) // 60)):
        outcomes.add(outcome_of(data[:end]))
    assert Reason.IMAGE_UNREADABLE in outcomes
    assert outcomes <= {Reason.IMAGE_UNREADABLE, None}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_damaged_bytes_are_read_or_refused(image_format: str, corners: Array, encode: Encode) -> None:
    data = encode(corners, image_format)
    random = np.random.default_rng(8)
    for _ in range(60):
        damaged = bytearray(data)
        for at in random.integers(0, len(data), 4):
            damaged[at] = int(random.integers(0, 256))
        assert outcome_of(bytes(damaged)) in (None, Reason.IMAGE_UNREADABLE, Reason.IMAGE_TOO_LARGE)


@pytest.mark.parametrize("data", [b"", b"hello, this is no image", b"%PDF-1.7 and so on", b"\x00" * 200])
def test_what_is_no_image_is_refused_with_what_was_seen(data: bytes) -> None:
    with pytest.raises(ImageUnreadable) as refused:
        decode(data)
    assert refused.value.reason is Reason.IMAGE_UNREADABLE
    assert refused.value.metadata["bytes"] == str(len(data))
    assert str(len(data)) in refused.value.message


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header promises more than any decoder should allocate; there are no pixels behind it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_huge_images_are_refused_by_their_header(width: int, height: int) -> None:
    with pytest.raises(ImageUnreadable) as refused:
        decode(huge_png(width, height))
    assert refused.value.reason is Reason.IMAGE_TOO_LARGE
    assert refused.value.metadata == {"width": str(width), "height": str(height), "max_pixels": str(LIMIT)}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_pixel_limit_holds_for_every_format(image_format: str, corners: Array, encode: Encode) -> None:
    data = encode(corners, image_format)
    assert decode_image(data, max_pixels=96 * 64).width == 96
    with pytest.raises(ImageUnreadable) as refused:
        decode_image(data, max_pixels=96 * 64 - 1)
    assert refused.value.reason is Reason.IMAGE_TOO_LARGE
    assert refused.value.metadata["width"] == "96"


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"exif": b"Exif\x00\x00"}])
def test_the_pixel_limit_holds_for_every_kind_of_webp(
    options: dict[str, object], corners: Array, encode: Encode
) -> None:
    with pytest.raises(ImageUnreadable) as refused:
        decode_image(encode(corners, "WEBP", **options), max_pixels=100)
    assert refused.value.metadata == {"width": "96", "height": "64", "max_pixels": "100"}


def test_a_huge_webp_is_refused_before_its_canvas_is_allocated() -> None:
    side = (16_383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\x00\x00\x00" + side + side
    with pytest.raises(ImageUnreadable) as refused:
        decode(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert refused.value.reason is Reason.IMAGE_TOO_LARGE
    assert refused.value.metadata["width"] == "16384"


def test_a_png_chunk_that_claims_gigabytes_costs_nothing(textured: Array, encode: Encode) -> None:
    data = bytearray(encode(textured, "PNG"))
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = struct.pack(">I", 2**31 - 1)
    tracemalloc.start()
    image = decode(bytes(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert np.abs(rgb(image)[:60] - textured[:60]).mean() <= 15


def test_too_small(encode: Encode) -> None:
    with pytest.raises(ImageUnreadable, match="at least 16") as refused:
        decode_image(encode(Image.new("RGB", (40, 15)), "PNG"), max_pixels=LIMIT, min_side=16)
    assert refused.value.reason is Reason.IMAGE_UNREADABLE


def test_difference_hash_knows_the_photo_again(textured: Array, encode: Encode) -> None:
    original = decode(encode(textured, "PNG")).difference_hash
    assert 0 < original < 2**64
    smaller = decode(encode(Image.fromarray(textured).resize((200, 150)), "JPEG", quality=60)).difference_hash
    mirrored = decode(encode(textured[:, ::-1], "PNG")).difference_hash
    assert (original ^ smaller).bit_count() <= 4
    assert (original ^ mirrored).bit_count() > 16


def test_difference_hash_of_a_falling_ramp_is_all_ones(encode: Encode) -> None:
    ramp = np.tile(np.linspace(255, 0, 90).astype(np.uint8), (80, 1))
    assert decode(encode(ramp, "PNG")).difference_hash == 2**64 - 1
    assert decode(encode(np.ascontiguousarray(ramp[:, ::-1]), "PNG")).difference_hash == 0


def test_decoder_answers_from_its_pool(corners: Array, encode: Encode) -> None:
    async def run(data: bytes) -> DecodedImage:
        with ThreadPoolExecutor(1) as pool:
            return await ImageDecoder(pool, ImageSettings()).decode(data)

    assert asyncio.run(run(encode(corners, "PNG"))).width == 96
    with pytest.raises(ImageUnreadable):
        asyncio.run(run(b"nothing"))


def test_decoder_gives_up_after_its_time_and_does_not_count_the_wait_for_a_thread(
    corners: Array, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, good = encode(corners, "BMP"), encode(corners, "PNG")
    released = threading.Event()

    def decode_slowly(data: bytes, *, max_pixels: int, min_side: int) -> DecodedImage:
        if data == slow:
            released.wait(30)
        return decode_image(data, max_pixels=max_pixels, min_side=min_side)

    monkeypatch.setattr("shared.imaging.decode.decode_image", decode_slowly)

    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            decoder = ImageDecoder(pool, ImageSettings(decode_timeout_s=0.2))
            try:
                first = asyncio.create_task(decoder.decode(slow))
                await asyncio.sleep(0)
                second = asyncio.create_task(decoder.decode(good))
                with pytest.raises(ImageUnreadable, match="longer than"):
                    await first
                # Its thread is still at it, and the time of the one behind has not begun.
                assert not second.done()
            finally:
                released.set()
            assert (await second).width == 96

    asyncio.run(run())
