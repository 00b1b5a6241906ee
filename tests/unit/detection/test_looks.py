"""How to look, to a message and back."""

from __future__ import annotations

import pytest

from services.detection.convert.looks import from_options, to_options
from services.detection.domain.model import OptionOverrides


@pytest.mark.parametrize(
    "options",
    [
        OptionOverrides(),
        OptionOverrides(min_confidence=0.25, min_face_px=48.0, min_quality=0.5, max_faces=7, second_pass=True),
        OptionOverrides(min_face_px=0.0, min_quality=0.0, second_pass=False),
    ],
)
def test_what_is_asked_for_arrives_and_nothing_else(options: OptionOverrides) -> None:
    assert from_options(to_options(options)) == options
