"""Parts of a photo that the detector looks at by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.detection.inference.detector import Detections
from shared.imaging.decode import Pixels


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """``pixels`` is a window into a photo whose top left corner is at ``left``, ``top`` of it, in whole pixels."""

    pixels: Pixels
    left: int
    top: int
    min_score: float

    def to_photo(self, seen: Detections) -> Detections:
        """What was seen in the view, in pixels of the photo."""
        if not self.left and not self.top:
            return seen
        corner = np.array([self.left, self.top], np.float32)
        return Detections(seen.boxes + np.tile(corner, 2), seen.scores, seen.landmarks + corner)


def cut_view(pixels: Pixels, left: int, top: int, right: int, bottom: int, min_score: float) -> View:
    """The part of ``pixels`` from ``left``, ``top`` to ``right``, ``bottom`` (exclusive) that lies in the photo.

    No copy is made. The part must overlap the photo.
    """
    left, top = max(0, left), max(0, top)
    return View(pixels[top : min(bottom, pixels.shape[0]), left : min(right, pixels.shape[1])], left, top, min_score)
