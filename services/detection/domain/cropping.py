"""The picture of one stored face, cut from its photo."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

from services.detection.domain.looking import FaceFinder
from shared.errors import ImageUnreadable, InvalidRequest
from shared.faces.boxes import Box
from shared.imaging.crop import CropFormat, crop_face, encode_crop
from shared.imaging.decode import Pixels
from shared.imaging.source import PhotoSource

DEFAULT_SIZE = 256
SIZES = range(16, 1025)
MAX_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class CropStyle:
    """How to cut: longer side in pixels at most, margin as a share of the box's longer side, square or as it is."""

    size: int
    margin: float
    square: bool
    format: CropFormat

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise InvalidRequest(f"size must be {SIZES.start}..{SIZES.stop - 1}", field="size")
        if not 0 <= self.margin <= MAX_MARGIN:
            raise InvalidRequest(f"margin must be 0..{MAX_MARGIN:g}", field="margin")


@dataclass(frozen=True, slots=True)
class Crop:
    """An encoded picture and its size in pixels."""

    content: bytes
    width: int
    height: int


async def cut_face(finder: FaceFinder, threads: Executor, uri: str, box: Box, style: CropStyle) -> Crop:
    """Cut a face out of the photo at ``uri``.

    Raises as :meth:`FaceFinder.read_photo`, and :class:`ImageUnreadable` if the photo there is so different from the one
    the face was found on that the box lies outside of it.
    """
    image = await finder.read_photo(PhotoSource(uri=uri))
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, _cut, image.pixels, box, style)


def _cut(pixels: Pixels, box: Box, style: CropStyle) -> Crop:
    try:
        cut = crop_face(pixels, box, margin=style.margin, size=style.size, square=style.square)
    except ValueError as error:
        raise ImageUnreadable(f"the photo is not the one this face was found on: {error}") from error
    return Crop(encode_crop(cut, style.format), cut.shape[1], cut.shape[0])
