"""Broken and hostile images, by the thousand, the same ones every time.

Each is named by its number and by what was done to it. They are made of small good pictures in every format, and of
what somebody who means harm would send: sizes that are not there, streams that unfold to gigabytes, directories that
lead round in circles, files that are something else or two things at once.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Hostile:
    """One of them."""

    name: str
    data: bytes


def make_hostile(count: int, *, seed: int = 20) -> Iterator[Hostile]:
    """``count`` images that are broken, hostile, or no images; some may be readable all the same."""
    random = np.random.default_rng(seed)
    good = make_good(random)
    bombs = make_bombs(good)
    damages: list[Callable[[bytes, Random], bytes]] = [
        truncate,
        flip_bits,
        overwrite_run,
        cut_out,
        double_run,
        raise_lengths,
        zero_head,
        append_rubbish,
    ]
    for number in range(count):
        if number % 5 == 4:
            name, data = bombs[number // 5 % len(bombs)]
            if number // 5 >= len(bombs):
                name, data = f"{name} damaged", flip_bits(data, random)
        else:
            kind = list(good)[number % len(good)]
            damage = damages[number // len(good) % len(damages)]
            name, data = f"{kind} {damage.__name__}", damage(good[kind], random)
        yield Hostile(f"{number} {name}", data)


def make_good(random: Random) -> dict[str, bytes]:
    """A small picture in every format and in many of its variants."""
    coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "somebody"
    exif.get_ifd(0x8769).update({0x9003: "2021:07:04 10:11:12", 0x9011: "+02:00", 0x927C: b"note" * 50})
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    frames: dict[str, object] = {"save_all": True, "append_images": [picture.rotate(9), picture.rotate(18)]}
    heif = io.BytesIO()
    pillow_heif.from_pillow(picture).save(heif, quality=70, exif=exif.tobytes())
    return {
        "jpeg": encode(picture, "JPEG", exif=exif),
        "jpeg progressive": encode(picture, "JPEG", progressive=True),
        "jpeg cmyk": encode(picture.convert("CMYK"), "JPEG"),
        "jpeg grey": encode(picture.convert("L"), "JPEG", exif=exif),
        "png": encode(picture, "PNG", exif=exif),
        "png alpha": encode(clear, "PNG"),
        "png palette": encode(picture.quantize(32), "PNG", transparency=3),
        "png deep": encode(deep, "PNG"),
        "apng": encode(picture, "PNG", **frames),
        "webp": encode(picture, "WEBP", exif=exif),
        "webp lossless": encode(clear, "WEBP", lossless=True),
        "webp moving": encode(picture, "WEBP", **frames),
        "heic": heif.getvalue(),
        "avif": encode(picture, "AVIF", exif=exif),
        "avif alpha": encode(clear, "AVIF"),
        "avif moving": encode(picture, "AVIF", **frames),
        "tiff": encode(picture, "TIFF", exif=exif),
        "tiff lzw": encode(picture, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encode(picture, "TIFF", compression="jpeg"),
        "tiff deep": encode(deep, "TIFF"),
        "tiff pages": encode(picture, "TIFF", **frames),
        "tiff cmyk": encode(picture.convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
        "bmp": encode(picture, "BMP"),
        "bmp palette": encode(picture.quantize(16), "BMP"),
        "gif": encode(picture, "GIF"),
        "gif moving": encode(picture, "GIF", **frames),
    }


def make_bombs(good: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """What is made by hand to hurt."""
    exif_loop = b"II*\x00" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)
    entries = b"".join(struct.pack("<HHII", 0x9000 + n, 7, 30_000, 8) for n in range(2700))
    exif_many = b"II*\x00" + struct.pack("<IH", 8, 2700) + entries + bytes(30_000)
    svg = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c SYSTEM "file:///etc/passwd">]><svg>&c;</svg>'
    return [
        ("empty", b""),
        ("one byte", b"\xff"),
        ("zeros", bytes(5000)),
        ("magic of jpeg alone", b"\xff\xd8\xff"),
        ("magic of png alone", b"\x89PNG\r\n\x1a\n"),
        ("magic of gif alone", b"GIF89a"),
        ("magic of tiff alone", b"II*\x00"),
        ("magic of webp alone", b"RIFF\x00\x00\x00\x00WEBP"),
        ("magic of heic alone", b"\x00\x00\x00\x18ftypheic"),
        ("magic of avif alone", b"\x00\x00\x00\x18ftypavif"),
        ("magic of bmp alone", b"BM"),
        ("svg", svg),
        ("html", b"<!doctype html><img src='http://169.254.169.254/'>" * 20),
        ("zip", b"PK\x03\x04" + bytes(200) + b"PK\x05\x06" + bytes(18)),
        ("pdf", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>"),
        ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(/etc/passwd) (r) file"),
        ("jpeg then zip", good["jpeg"] + b"PK\x03\x04" + bytes(500)),
        ("gif then html", good["gif"] + b"<script>alert(1)</script>"),
        ("jpeg named png", good["png"][:8] + good["jpeg"]),
        ("png named jpeg", good["jpeg"][:3] + good["png"]),
        ("png huge", png(40_000, 40_000, b"")),
        ("png widest", png(2**31 - 1, 1, b"")),
        ("png negative", png(2**32 - 1, 2**32 - 1, b"")),
        ("png of no size", png(0, 0, b"")),
        ("png that unfolds to more than its size", png(64, 64, zlib.compress(bytes(50_000_000), 9))),
        ("png at the limit without pixels", png(1000, 999, zlib.compress(b"\x00"))),
        ("png of zeros at the limit", png(1000, 999, zlib.compress(bytes(3001 * 999), 9))),
        ("png text that unfolds", png_with(good["png"], b"zTXt", b"a\x00\x00" + zlib.compress(bytes(80_000_000), 9))),
        ("png profile that unfolds", png_with(good["png"], b"iCCP", b"a\x00\x00" + zlib.compress(bytes(9_000_000), 9))),
        ("png with a loop in its exif", png_with(good["png palette"], b"eXIf", exif_loop)),
        ("gif huge", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b",;"),
        ("gif huge frame", gif_with_frame(65535, 65535)),
        ("gif frame beside its screen", gif_with_frame(40, 40, 60_000)),
        ("webp huge", riff(b"VP8X", b"\x10\x00\x00\x00" + b"\xff\x3f\x00" * 2)),
        ("webp lossless huge", riff(b"VP8L", b"\x2f" + struct.pack("<I", 0x0FFFFFFF) + bytes(50))),
        ("bmp huge", bmp(60_000, 60_000, 24)),
        ("bmp negative", bmp(-60_000, -60_000, 24)),
        ("bmp of strange depth", bmp(64, 64, 77)),
        ("bmp run length without end", bmp(900, 900, 8, compression=1)),
        ("tiff huge", tiff(60_000, 60_000)),
        ("tiff of one strip too few", tiff(900, 900)),
        ("tiff whose strips are gigabytes", tiff(900, 900, strip=2**31)),
        ("tiff unknown compression", tiff(64, 64, compression=34892)),
        ("tiff deflate", tiff(900, 900, compression=8, body=zlib.compress(bytes(60_000_000), 9))),
        ("tiff directory loop", b"II*\x00" + struct.pack("<IHI", 8, 0, 8)),
        ("tiff directory beyond its end", b"MM\x00*\xff\xff\xff\xf0"),
        ("jpeg with a loop in its exif", jpeg_with(good["jpeg grey"], b"Exif\x00\x00" + exif_loop)),
        ("jpeg with thousands of entries", jpeg_with(good["jpeg cmyk"], b"Exif\x00\x00" + exif_many)),
        ("jpeg with all its exif segments", jpeg_with(good["jpeg"], b"Exif\x00\x00" + bytes(65_000), times=30)),
        ("jpeg huge", jpeg_of_size(good["jpeg"], 65_500, 65_500)),
        ("jpeg of no height", jpeg_of_size(good["jpeg"], 96, 0)),
        ("jpeg larger than its pixels", jpeg_of_size(good["jpeg progressive"], 1000, 999)),
        ("jpeg of many scans", many_scans(good["jpeg progressive"])),
        ("heic boxes without end", good["heic"][:40] + b"\x00\x00\x00\x01meta" + b"\xff" * 64),
        ("avif sizes without end", good["avif"].replace(b"ispe\x00\x00\x00\x00", b"ispe\x00\x00\x00\x00\x7f\xff")),
        ("a moving giant", moving_giant()),
    ]  # fmt: skip


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def truncate(data: bytes, random: Random) -> bytes:
    return data[: int(random.integers(0, len(data)))]


def flip_bits(data: bytes, random: Random) -> bytes:
    flipped = np.frombuffer(data or b"\x00", np.uint8).copy()
    for at in random.integers(0, len(flipped), int(random.integers(1, 40))):
        flipped[at] ^= np.uint8(1 << int(random.integers(0, 8)))
    return flipped.tobytes()


def overwrite_run(data: bytes, random: Random) -> bytes:
    at, size = int(random.integers(0, len(data))), int(random.integers(1, 200))
    return data[:at] + random.bytes(size) + data[at + size :]


def cut_out(data: bytes, random: Random) -> bytes:
    at = int(random.integers(8, len(data)))
    return data[:at] + data[at + int(random.integers(1, 100)) :]


def double_run(data: bytes, random: Random) -> bytes:
    at = int(random.integers(0, len(data)))
    return data[:at] + data[at // 2 : at] * 3 + data[at:]


def raise_lengths(data: bytes, random: Random) -> bytes:
    """Some four bytes of the head become the largest numbers there are."""
    raised = bytearray(data)
    for at in random.integers(4, min(len(data), 400) - 4, 3):
        raised[at : at + 4] = random.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    return bytes(raised)


def zero_head(data: bytes, random: Random) -> bytes:
    at, size = int(random.integers(4, 60)), int(random.integers(4, 60))
    return data[:at] + bytes(size) + data[at + size :]


def append_rubbish(data: bytes, random: Random) -> bytes:
    return data[: int(random.integers(len(data) // 2, len(data)))] + random.bytes(500)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes) -> bytes:
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", size) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def png_with(data: bytes, kind: bytes, body: bytes) -> bytes:
    return data[:33] + png_chunk(kind, body) + data[33:]


def gif_with_frame(width: int, height: int, left: int = 0) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", left, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"


def riff(kind: bytes, body: bytes) -> bytes:
    chunk = b"WEBP" + kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunk)) + chunk


def bmp(width: int, height: int, bits: int, compression: int = 0) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 2000, 0, 0, 54 + 1024) + info + bytes(1024) + b"\x02\x01" * 400


def tiff(width: int, height: int, *, compression: int = 1, strip: int = 500, body: bytes = bytes(500)) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, compression), (262, 1), (273, 200), (277, 1), (278, height)]
    tags.append((279, len(body) if compression == 8 else strip))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries).ljust(200, b"\x00") + body


def jpeg_with(data: bytes, segment: bytes, times: int = 1) -> bytes:
    return data[:2] + (b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment) * times + data[2:]


def jpeg_of_size(data: bytes, width: int, height: int) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def many_scans(data: bytes) -> bytes:
    """A progressive JPEG whose last scan comes over and over: each is work for the whole picture."""
    last = data.rindex(b"\xff\xda")
    return jpeg_of_size(data[:last] + data[last:-2] * 2000 + data[-2:], 1000, 999)


def moving_giant() -> bytes:
    """An APNG that says it has four billion frames, and whose first is as large as may be."""
    pixels: NDArray[np.uint8] = np.zeros((999, 1000, 3), np.uint8)
    data = encode(Image.fromarray(pixels), "PNG")
    return png_with(data, b"acTL", struct.pack(">II", 2**32 - 1, 0))
