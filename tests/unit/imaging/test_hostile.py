"""Two thousand broken and hostile images: each is read or refused with its reason, none costs more than it may."""

from __future__ import annotations

import resource
from collections import Counter

import numpy as np
import pytest

from shared.errors import ImageUnreadable, Reason
from shared.imaging.decode import decode_image
from tests.unit.imaging.hostile import make_good, make_hostile, many_scans

COUNT = 2000
MAX_PIXELS = 1_000_000
WARM_UP = 200
# Eight bytes for a pixel, and what allocators keep. One bomb that unfolds takes more.
MAY_GROW = 8 * MAX_PIXELS + 24 * 2**20


def outcome_of(data: bytes) -> Reason | None:
    """Why an image is refused; None if it is read."""
    try:
        image = decode_image(data, max_pixels=MAX_PIXELS, min_side=16)
    except ImageUnreadable as refused:
        # The message goes to a client and into a table: it says something, and not the whole file.
        return refused.reason if 0 < len(refused.message) < 500 else Reason.INTERNAL_ERROR
    assert image.pixels.shape == (image.height, image.width, 3)
    assert min(image.width, image.height) >= 16
    assert image.width * image.height <= MAX_PIXELS
    return None


# Pillow warns of each wrong entry of a TIFF's directory.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_hostile_image_is_read_or_refused() -> None:
    outcomes: Counter[Reason | None] = Counter()
    peak = 0
    for number, hostile in enumerate(make_hostile(COUNT)):
        try:
            outcomes[outcome_of(hostile.data)] += 1
        except Exception as error:
            error.add_note(hostile.name)
            raise
        if number == WARM_UP:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert set(outcomes) == {None, Reason.IMAGE_UNREADABLE, Reason.IMAGE_TOO_LARGE}
    assert outcomes[Reason.IMAGE_UNREADABLE] > COUNT // 4
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < MAY_GROW


def test_a_jpeg_of_endless_scans_is_refused_before_they_are_decoded() -> None:
    good = make_good(np.random.default_rng(1))
    with pytest.raises(ImageUnreadable, match="scans, more than 100 are not read"):
        decode_image(many_scans(good["jpeg progressive"]), max_pixels=MAX_PIXELS)
    assert decode_image(good["jpeg progressive"], max_pixels=MAX_PIXELS).width == 96
