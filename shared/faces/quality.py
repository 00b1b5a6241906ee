"""How well a face can be recognised, from 0 to 1, as parts that can be read and one figure.

The parts are the component measures of ISO/IEC 29794-5 that can be had without a further model: inter-eye
distance, sharpness, head pose; with the detector's own score, and, where the pack says its length means
something (as MagFace's does, Meng et al., CVPR 2021), the embedding's norm before normalisation.

    size        min(1, inter-ocular pixels / full_interocular_px)
    sharpness   min(1, variance of Laplacian / full_sharpness)
    pose        product over yaw, pitch, roll of max(0, 1 - (angle / max_angle)^2)
    confidence  the detector's score
    norm        (norm - low) / (high - low), clipped to 0..1; absent without a range
    overall     exp(sum of w_i * log(part_i) / sum of w_i), the weighted geometric mean; 0 if a part is 0

The geometric mean, because one bad part spoils a face however good the others are. The weights are this
house's starting point, not a published result: pose and size lead, as they cost ArcFace-like models most;
sharpness follows, since a small face is counted as soft already; the detector's score comes last, being close
to 1 for nearly everything that is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.config import QualitySettings

_WEIGHTS = {"size": 0.30, "sharpness": 0.25, "pose": 0.30, "confidence": 0.15, "norm": 0.25}

# Proportions of the mean face. The first two follow from the ArcFace template (eyes at y 51.6, nose 71.7,
# mouth 92.3, eyes 35.2 apart); the depth of the nose tip before the plane of eyes and mouth, in inter-ocular
# distances, from mean anthropometry (about 32 mm to 63 mm).
_NOSE_HEIGHT = 0.495
_EYE_TO_MOUTH = 1.156
_NOSE_DEPTH = 0.5

# Where eyes, nose and mouth lie on the aligned crop, as fractions of its side: background and the black
# beyond a photo's edge, both full of sharp lines that say nothing about the face, stay outside.
_INNER = (0.25, 0.875)
_ALIGNED_SIDE = 112


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Degrees. ``yaw`` > 0 turns to the viewer's right, ``pitch`` > 0 looks up, ``roll`` > 0 leans clockwise as seen."""

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """The parts (0..1), the overall figure (0..1), and what was measured for them.

    ``interocular_px`` is in pixels of the upright photo, ``laplacian_variance`` in squared grey levels
    (0..255) of the aligned crop.
    """

    overall: float
    size: float
    sharpness: float
    pose: float
    confidence: float
    norm: float | None
    interocular_px: float
    laplacian_variance: float
    head: HeadPose


def measure_quality(
    *,
    landmarks: NDArray[np.floating],
    crop: NDArray[np.uint8],
    confidence: float,
    settings: QualitySettings,
    embedding_norm: float | None = None,
    norm_range: tuple[float, float] | None = None,
) -> FaceQuality:
    """Quality of one face.

    ``landmarks`` is (5, 2) in pixels of the upright photo, in InsightFace's order (viewer's left eye, right
    eye, nose, left mouth corner, right mouth corner); ``crop`` is the aligned face, (S, S, 3) uint8 BGR;
    ``confidence`` is 0..1. The norm counts only if both ``embedding_norm`` and the pack's ``norm_range``
    (low, high) are given.
    """
    head = estimate_pose(landmarks)
    eyes_px = interocular_distance(landmarks)
    variance = laplacian_variance(crop)
    parts = {
        "size": min(1.0, eyes_px / settings.full_interocular_px),
        "sharpness": min(1.0, variance / settings.full_sharpness),
        "pose": _pose_part(head, settings),
        "confidence": min(1.0, max(0.0, confidence)),
    }
    norm = None
    if embedding_norm is not None and norm_range is not None:
        low, high = norm_range
        norm = parts["norm"] = min(1.0, max(0.0, (embedding_norm - low) / (high - low)))
    return FaceQuality(
        overall=combine_parts(parts),
        size=parts["size"],
        sharpness=parts["sharpness"],
        pose=parts["pose"],
        confidence=parts["confidence"],
        norm=norm,
        interocular_px=eyes_px,
        laplacian_variance=variance,
        head=head,
    )


def combine_parts(parts: dict[str, float]) -> float:
    """Weighted geometric mean of the named parts (each 0..1); the weights of absent parts are left out."""
    if min(parts.values()) <= 0:
        return 0.0
    total = sum(_WEIGHTS[name] for name in parts)
    return math.exp(sum(_WEIGHTS[name] * math.log(part) for name, part in parts.items()) / total)


def interocular_distance(landmarks: NDArray[np.floating]) -> float:
    """Distance between the eyes in pixels, as if seen from the front.

    Yaw shortens the line between the eyes but not the one from eyes to mouth, pitch the other way round: the
    longer of the two, the second scaled by the proportions of the mean face, stands for both.
    """
    points = np.asarray(landmarks, np.float64)
    between_eyes = float(np.linalg.norm(points[1] - points[0]))
    eyes_to_mouth = float(np.linalg.norm(points[3:5].mean(axis=0) - points[0:2].mean(axis=0)))
    return max(between_eyes, eyes_to_mouth / _EYE_TO_MOUTH)


def laplacian_variance(crop: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian over eyes, nose and mouth of an aligned (S, S, 3) BGR crop, brought to 112 px.

    A measure of focus (Pech-Pacheco et al., ICPR 2000): blur removes the high frequencies the Laplacian answers to.
    """
    if crop.shape[0] != _ALIGNED_SIDE:
        crop = np.asarray(cv2.resize(crop, (_ALIGNED_SIDE, _ALIGNED_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    low, high = (round(_ALIGNED_SIDE * part) for part in _INNER)
    grey = cv2.cvtColor(crop[low:high, low:high], cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def estimate_pose(landmarks: NDArray[np.floating]) -> HeadPose:
    """Head pose from the five points (5, 2), by the parallax of the nose tip.

    Roll is the slope of the eyes. After taking it out, a nose tip standing ``depth`` before the plane of eyes
    and mouth moves sideways by depth * sin(yaw) while that plane narrows by cos(yaw), so the offset in
    (narrowed) inter-ocular distances is depth * tan(yaw); likewise down the face for pitch. Weak perspective;
    right to about 10 degrees on a mean face, which is enough for a quality figure.
    """
    points = np.asarray(landmarks, np.float64)
    left_eye, right_eye = points[0], points[1]
    across = right_eye - left_eye
    roll = math.atan2(across[1], across[0])
    turn = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    level = (points - (left_eye + right_eye) / 2) @ turn.T
    eyes_apart = level[1, 0] - level[0, 0]
    mouth = level[3:5].mean(axis=0)
    nose = level[2]
    # A mouth at or above the eyes is no face the model knows; a tiny positive height keeps the angles finite and
    # large.
    height = max(float(mouth[1]), 1e-6)
    width = max(float(eyes_apart), 1e-6)
    beside_axis = float(nose[0] - mouth[0] * nose[1] / height)
    yaw = math.atan2(beside_axis, width * _NOSE_DEPTH)
    # Nose depth in eye-to-mouth heights turns the vertical parallax into an angle.
    pitch = math.atan2(_NOSE_HEIGHT - float(nose[1]) / height, _NOSE_DEPTH / _EYE_TO_MOUTH)
    return HeadPose(yaw=math.degrees(yaw), pitch=math.degrees(pitch), roll=math.degrees(roll))


def _pose_part(head: HeadPose, settings: QualitySettings) -> float:
    limits = (
        (head.yaw, settings.max_yaw_deg),
        (head.pitch, settings.max_pitch_deg),
        (head.roll, settings.max_roll_deg),
    )
    return math.prod(max(0.0, 1.0 - (angle / limit) ** 2) for angle, limit in limits)
