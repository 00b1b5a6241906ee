"""The second look at a large photo: in overlapping tiles, each shown to the detector at twice its input's size.

Whole, a photo of 6000 px is shrunk nine times and a face of 100 px falls below what SCRFD can see. A tile shows faces
from about 25 px on. Any face no larger than the overlap lies whole in some tile, and any larger one is large enough for
the first look, so what touches the border between tiles is part of a face that is seen whole elsewhere, and is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.detection.inference.detector import Detections, suppress_overlaps
from services.detection.inference.views import View, cut_view
from shared.imaging.decode import Pixels

_TILE_PER_INPUT = 2
_OVERLAP = 0.2
# A photo with a face this large, in pixels of the detector's input, shows people near by; the second look is for
# those far away.
_SMALL_IN_INPUT = 40.0
# A box that comes this close to the border of its tile, in pixels of the detector's input, is cut by it.
_TOUCHES_IN_INPUT = 2.0


@dataclass(frozen=True, slots=True)
class TileGrid:
    """How photos are tiled for a detector whose input is ``input_size`` pixels square."""

    input_size: int

    @property
    def side(self) -> int:
        """Of a tile, in pixels of the photo."""
        return _TILE_PER_INPUT * self.input_size

    def is_wanted(self, pixels: Pixels, seen: Detections, min_px: int) -> bool:
        """Whether a photo whose longer side has at least ``min_px`` pixels showed no face, or only small ones."""
        longer: int = max(pixels.shape[:2])
        # What fits one tile is shown no larger by it than twice as large as the first look did.
        if longer < min_px or longer <= self.side:
            return False
        sides = (seen.boxes[:, 2:] - seen.boxes[:, :2]).min(axis=1)
        largest = float(sides.max(initial=0.0))
        return largest * self.input_size / longer < _SMALL_IN_INPUT

    def cut(self, pixels: Pixels, min_score: float) -> list[View]:
        """The tiles of a photo, row by row; together they cover it."""
        height, width = pixels.shape[:2]
        return [
            cut_view(pixels, left, top, left + self.side, top + self.side, min_score)
            for top in self._starts(height)
            for left in self._starts(width)
        ]

    def merge(
        self, pixels: Pixels, first: Detections, tiles: Sequence[View], seen: Sequence[Detections], nms_iou: float
    ) -> Detections:
        """Faces of both looks, each once, by falling score; all in pixels of the photo."""
        parts = [first, *(self._drop_cut(pixels, tile, found) for tile, found in zip(tiles, seen, strict=True))]
        scores = np.concatenate([part.scores for part in parts])
        order = np.argsort(-scores, kind="stable")
        boxes = np.concatenate([part.boxes for part in parts])[order]
        keep = suppress_overlaps(boxes, nms_iou)
        landmarks = np.concatenate([part.landmarks for part in parts])
        return Detections(boxes[keep], scores[order][keep], landmarks[order][keep])

    def _starts(self, extent: int) -> list[int]:
        step = self.side * (1 - _OVERLAP)
        count = 1 + max(0, int(np.ceil((extent - self.side) / step)))
        return [round(start) for start in np.linspace(0, max(0, extent - self.side), count)]

    def _drop_cut(self, pixels: Pixels, tile: View, found: Detections) -> Detections:
        height, width = pixels.shape[:2]
        right, bottom = tile.left + tile.pixels.shape[1], tile.top + tile.pixels.shape[0]
        near = _TOUCHES_IN_INPUT * _TILE_PER_INPUT
        left_x, top_y, right_x, bottom_y = found.boxes.T
        # A border of the tile that is one of the photo cuts nothing.
        cut = (
            ((left_x < tile.left + near) & (tile.left > 0))
            | ((top_y < tile.top + near) & (tile.top > 0))
            | ((right_x > right - near) & (right < width))
            | ((bottom_y > bottom - near) & (bottom < height))
        )
        return Detections(found.boxes[~cut], found.scores[~cut], found.landmarks[~cut])
