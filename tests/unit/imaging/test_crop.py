"""Face crops: what is cut, how large, how encoded."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shared.faces.boxes import Box
from shared.imaging.crop import CropFormat, crop_face, encode_crop

PHOTO = np.random.default_rng(6).integers(0, 256, (120, 200, 3), dtype=np.uint8)


def test_the_box_itself() -> None:
    assert np.array_equal(crop_face(PHOTO, Box(30, 20, 40, 50), margin=0), PHOTO[20:70, 30:70])


def test_margin_is_a_share_of_the_longer_side_and_ends_at_the_edge() -> None:
    assert np.array_equal(crop_face(PHOTO, Box(50, 30, 20, 40), margin=0.25), PHOTO[20:80, 40:80])
    assert np.array_equal(crop_face(PHOTO, Box(-10, -5, 40, 40), margin=0.5), PHOTO[:55, :50])


def test_square_slides_along_the_edge() -> None:
    assert np.array_equal(crop_face(PHOTO, Box(0, 0, 20, 40), margin=0.25, square=True), PHOTO[:60, :60])
    assert crop_face(PHOTO, Box(10, 10, 150, 100), margin=1, square=True).shape == (120, 120, 3)


@pytest.mark.parametrize(("size", "shape"), [(30, (30, 24, 3)), (50, (50, 40, 3)), (500, (50, 40, 3))])
def test_size_bounds_the_longer_side_and_never_enlarges(size: int, shape: tuple[int, ...]) -> None:
    assert crop_face(PHOTO, Box(30, 20, 40, 50), margin=0, size=size).shape == shape


def test_a_sliver_still_has_a_pixel_and_what_is_outside_is_refused() -> None:
    assert min(crop_face(PHOTO, Box(199.6, 10, 0.2, 0.2), margin=0).shape[:2]) >= 1
    with pytest.raises(ValueError, match="outside"):
        crop_face(PHOTO, Box(200, 10, 20, 20), margin=1)


@pytest.mark.parametrize(("crop_format", "magic"), [(CropFormat.JPEG, b"\xff\xd8\xff"), (CropFormat.WEBP, b"RIFF")])
def test_encodings(crop_format: CropFormat, magic: bytes) -> None:
    data = encode_crop(PHOTO, crop_format, quality=95)
    assert data.startswith(magic)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == PHOTO.shape
    assert len(encode_crop(PHOTO, crop_format, quality=20)) < len(data)
