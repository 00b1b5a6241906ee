"""The values that go into and come out of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.config import Provider
from shared.faces.boxes import Box
from shared.faces.quality import FaceQuality

MIN_GIVEN_PX: Final = 8
"""The least width and height of a box in which a face can be measured, in pixels of the upright photo."""


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """What counts as a face, per photo. Sizes in pixels of the upright photo, the rest 0..1.

    ``min_face_px`` is held against the shorter side of the box; of more than ``max_faces`` the best by confidence are
    kept. ``second_pass`` looks again, in tiles, at a large photo on which only small faces or none were found.
    """

    min_confidence: float
    min_face_px: float
    min_quality: float
    max_faces: int
    with_embeddings: bool = True
    second_pass: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class GivenFace:
    """A face whose place is known: it is measured and embedded, not looked for.

    ``landmarks`` is as in :class:`DetectedFace`, or None: then the detector is asked where they are in and around the
    box, and where it sees no face they are estimated from the box.
    """

    given_id: str
    box: Box
    landmarks: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFace:
    """One face of a photo, in pixels of the upright image.

    ``landmarks`` is (5, 2) float32: viewer's left eye, right eye, nose, left and right mouth corner.
    ``embedding`` is (D,) float32 of length 1 and ``embedding_norm`` its length before; both None if no
    embedding was asked for. ``given_id`` is that of the :class:`GivenFace` it answers, empty if it was detected;
    the ``confidence`` of a given face is 0 unless the detector saw it.
    """

    box: Box
    landmarks: NDArray[np.float32]
    confidence: float
    quality: FaceQuality
    embedding: NDArray[np.float32] | None
    embedding_norm: float | None
    given_id: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What runs, and where.

    ``version`` names the embedding space, ``dimension`` was measured on the loaded model. ``provider_reason``
    says why ``provider`` was taken; ``providers`` is what onnxruntime reports for each model file, by its name, and
    ``sha256`` is of that file, in hex. ``rewrites`` lists what was changed in the graphs at load, or why it was not;
    ``runtime`` the versions of the libraries.
    """

    pack: str
    version: str
    dimension: int
    detection_size: int
    provider: Provider
    provider_reason: str
    providers: Mapping[str, str]
    sha256: Mapping[str, str]
    licence: str
    thresholds: Mapping[str, float]
    calibration: Mapping[str, Any]
    rewrites: tuple[str, ...]
    runtime: Mapping[str, str]
