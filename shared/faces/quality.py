"""How well a face can be recognised, from 0 to 1, as parts that can be read and one figure.

The parts are the component measures of ISO/IEC 29794-5 that can be had without a further model: inter-eye
distance, sharpness, head pose; with the detector's own score, and, where the pack says its length means
something (as MagFace's does, Meng et al., CVPR 2021), the embedding's norm before normalisation.

    size        min(1, inter-ocular pixels / full_interocular_px)
    sharpness   min(1, variance of Laplacian / full_sharpness)
    pose        product over yaw, pitch, roll of max(0, 1 - (angle / max_angle)^2)
    confidence  the detector's score; absent if none was asked
    norm        (norm - low) / (high - low), clipped to 0..1; absent without a range
    overall     exp(sum of w_i * log(part_i) / sum of w_i), the weighted geometric mean; 0 if a part is 0

The geometric mean, because one bad part spoils a face however good the others are. The weights are this
house's starting point, not a published result: pose and size lead, as they cost ArcFace-like models most;
sharpness follows, since a small face is counted as soft already; the detector's score comes last, being close
to 1 for nearly everything that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    (0..255) of the aligned crop. ``confidence`` and ``norm`` are None if they are not among the parts.
    """

    overall: float
    size: float
    sharpness: float
    pose: float
    confidence: float | None
    norm: float | None
    interocular_px: float
    laplacian_variance: float
    head: HeadPose


def measure_quality(
    *,
    landmarks: NDArray[np.floating],
    crop: NDArray[np.uint8],
    confidence: float | None,
    settings: QualitySettings,
    embedding_norm: float | None = None,
    norm_range: tuple[float, float] | None = None,
) -> FaceQuality:
    """:func:`measure_qualities` of one face: (5, 2) landmarks."""
    norms = None if embedding_norm is None else [embedding_norm]
    return measure_qualities(
        landmarks=np.asarray(landmarks)[None],
        crops=[crop],
        confidences=[confidence],
        settings=settings,
        embedding_norms=norms,
        norm_range=norm_range,
    )[0]


def measure_qualities(
    *,
    landmarks: NDArray[np.floating],
    crops: Sequence[NDArray[np.uint8]],
    confidences: Sequence[float | None],
    settings: QualitySettings,
    embedding_norms: Sequence[float] | None = None,
    norm_range: tuple[float, float] | None = None,
) -> list[FaceQuality]:
    """Quality of N faces.

    ``landmarks`` is (N, 5, 2) in pixels of the upright photo, in InsightFace's order (viewer's left eye, right
    eye, nose, left mouth corner, right mouth corner); ``crops`` are the aligned faces, (S, S, 3) uint8 BGR;
    ``confidences`` are 0..1, or None for a face no detector was asked about. The norms count only if both
    ``embedding_norms`` and the pack's ``norm_range`` (low, high) are given.
    """
    angles = estimate_poses(landmarks)
    poses = _pose_parts(angles, settings).tolist()
    eyes_px = interocular_distances(landmarks).tolist()
    measured: list[FaceQuality] = []
    for row, (crop, confidence) in enumerate(zip(crops, confidences, strict=True)):
        variance = laplacian_variance(crop)
        parts = {
            "size": min(1.0, eyes_px[row] / settings.full_interocular_px),
            "sharpness": min(1.0, variance / settings.full_sharpness),
            "pose": poses[row],
        }
        if confidence is not None:
            parts["confidence"] = min(1.0, max(0.0, confidence))
        if embedding_norms is not None and norm_range is not None:
            low, high = norm_range
            parts["norm"] = min(1.0, max(0.0, (embedding_norms[row] - low) / (high - low)))
        measured.append(
            FaceQuality(
                overall=combine_parts(parts),
                size=parts["size"],
                sharpness=parts["sharpness"],
                pose=parts["pose"],
                confidence=parts.get("confidence"),
                norm=parts.get("norm"),
                interocular_px=eyes_px[row],
                laplacian_variance=variance,
                head=HeadPose(*angles[row].tolist()),
            )
        )
    return measured


def combine_parts(parts: dict[str, float]) -> float:
    """Weighted geometric mean of the named parts (each 0..1); the weights of absent parts are left out."""
    if min(parts.values()) <= 0:
        return 0.0
    total = sum(_WEIGHTS[name] for name in parts)
    return math.exp(sum(_WEIGHTS[name] * math.log(part) for name, part in parts.items()) / total)


@dataclass(frozen=True, slots=True, eq=False)
class PlacedQuality:
    """What is known of N faces without their pixels, as columns: sharpness is not. Unknown parts are 0, and no part.

    ``overall``, ``size`` and ``pose`` are (N,), ``angles`` is (N, 3): yaw, pitch and roll in degrees.
    """

    overall: NDArray[np.float64]
    size: NDArray[np.float64]
    pose: NDArray[np.float64]
    angles: NDArray[np.float64]


def measure_placed(
    landmarks: NDArray[np.floating],
    seen: NDArray[np.bool_],
    confidences: NDArray[np.floating],
    settings: QualitySettings,
) -> PlacedQuality:
    """Quality of N faces from their key points (N, 5, 2) alone, in pixels of the upright photo.

    Where ``seen`` (N,) is False the points are estimated from the box, and say nothing about the pose. A confidence (N,)
    of 0 was not given.
    """
    angles = np.where(seen[:, None], estimate_poses(landmarks), 0.0)
    size = np.minimum(1.0, interocular_distances(landmarks) / settings.full_interocular_px)
    pose = np.where(seen, _pose_parts(angles, settings), 0.0)
    shown = np.clip(confidences.astype(np.float64), 0.0, 1.0)
    parts = {"size": (size, np.ones_like(seen)), "pose": (pose, seen), "confidence": (shown, shown > 0)}
    total = sum(_WEIGHTS[name] * known for name, (_, known) in parts.items())
    with np.errstate(divide="ignore"):
        logs = sum(_WEIGHTS[name] * np.where(known, np.log(part), 0.0) for name, (part, known) in parts.items())
    return PlacedQuality(np.exp(logs / total), size, pose, angles)


def interocular_distance(landmarks: NDArray[np.floating]) -> float:
    """:func:`interocular_distances` of one face (5, 2)."""
    return float(interocular_distances(np.asarray(landmarks)[None])[0])


def interocular_distances(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distance between the eyes in pixels (N,) of N faces (N, 5, 2), as if seen from the front.

    Yaw shortens the line between the eyes but not the one from eyes to mouth, pitch the other way round: the
    longer of the two, the second scaled by the proportions of the mean face, stands for both.
    """
    points = np.asarray(landmarks, np.float64)
    between_eyes = np.linalg.norm(points[:, 1] - points[:, 0], axis=1)
    eyes_to_mouth = np.linalg.norm(points[:, 3:5].mean(axis=1) - points[:, 0:2].mean(axis=1), axis=1)
    distances: NDArray[np.float64] = np.maximum(between_eyes, eyes_to_mouth / _EYE_TO_MOUTH)
    return distances


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
    """:func:`estimate_poses` of one face (5, 2)."""
    yaw, pitch, roll = estimate_poses(np.asarray(landmarks)[None])[0].tolist()
    return HeadPose(yaw=yaw, pitch=pitch, roll=roll)


def estimate_poses(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Head poses from the five points of N faces (N, 5, 2), by the parallax of the nose tip: (N, 3) degrees.

    Columns are yaw, pitch, roll. Roll is the slope of the eyes. After taking it out, a nose tip standing ``depth``
    before the plane of eyes and mouth moves sideways by depth * sin(yaw) while that plane narrows by cos(yaw), so the
    offset in (narrowed) inter-ocular distances is depth * tan(yaw); likewise down the face for pitch. Weak
    perspective; right to about 10 degrees on a mean face, which is enough for a quality figure.
    """
    points = np.asarray(landmarks, np.float64)
    left_eye, right_eye = points[:, 0], points[:, 1]
    across = right_eye - left_eye
    roll = np.arctan2(across[:, 1], across[:, 0])
    cosine, sine = np.cos(roll), np.sin(roll)
    turn = np.stack([np.stack([cosine, sine], axis=1), np.stack([-sine, cosine], axis=1)], axis=1)
    level = (points - ((left_eye + right_eye) / 2)[:, None]) @ turn.transpose(0, 2, 1)
    mouth = level[:, 3:5].mean(axis=1)
    nose = level[:, 2]
    # A mouth at or above the eyes is no face the model knows; a tiny positive height keeps the angles finite and
    # large.
    height = np.maximum(mouth[:, 1], 1e-6)
    width = np.maximum(level[:, 1, 0] - level[:, 0, 0], 1e-6)
    beside_axis = nose[:, 0] - mouth[:, 0] * nose[:, 1] / height
    yaw = np.arctan2(beside_axis, width * _NOSE_DEPTH)
    # Nose depth in eye-to-mouth heights turns the vertical parallax into an angle.
    pitch = np.arctan2(_NOSE_HEIGHT - nose[:, 1] / height, _NOSE_DEPTH / _EYE_TO_MOUTH)
    poses: NDArray[np.float64] = np.degrees(np.stack([yaw, pitch, roll], axis=1))
    return poses


def _pose_parts(angles: NDArray[np.float64], settings: QualitySettings) -> NDArray[np.float64]:
    limits = np.array([settings.max_yaw_deg, settings.max_pitch_deg, settings.max_roll_deg])
    parts: NDArray[np.float64] = np.maximum(0.0, 1.0 - (angles / limits) ** 2).prod(axis=1)
    return parts
