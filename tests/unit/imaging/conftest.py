"""Pictures made on the spot, for reading them back."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture
def corners() -> NDArray[np.uint8]:
    """96 x 64 RGB, each quarter of another colour, so that every turn and mirror image is told from the others."""
    pixels = np.empty((64, 96, 3), np.uint8)
    pixels[:32, :48] = (220, 30, 40)
    pixels[:32, 48:] = (30, 200, 50)
    pixels[32:, :48] = (40, 60, 210)
    pixels[32:, 48:] = (230, 220, 60)
    return pixels


@pytest.fixture
def textured() -> NDArray[np.uint8]:
    """320 x 240 RGB, smooth and different everywhere."""
    coarse = np.random.default_rng(11).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC))


@pytest.fixture
def encode() -> Encode:
    """``encode(image or array, format, **options of Pillow) -> bytes``."""

    def to_bytes(image: Image.Image | NDArray[np.uint8], image_format: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, image_format, **options)
        return buffer.getvalue()

    return to_bytes
