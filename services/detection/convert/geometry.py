"""Boxes, landmarks and quality, both ways: the parts of a face that stored and found ones share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kith.common.v1 import types_pb2
from kith.detection.v1 import faces_pb2 as pb
from services.detection.domain.model import QualityFigures
from shared.faces.boxes import Box

POINTS: Final = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


def to_box(box: Box) -> types_pb2.BoundingBox:
    """A box as a message."""
    return types_pb2.BoundingBox(x=box.x, y=box.y, width=box.width, height=box.height)


def from_box(message: types_pb2.BoundingBox) -> Box:
    """A box of a message."""
    return Box(message.x, message.y, message.width, message.height)


def to_landmarks(values: Sequence[float]) -> types_pb2.Landmarks:
    """Ten numbers, x0, y0 .. x4, y4, as a message."""
    points = {name: types_pb2.Point(x=values[2 * index], y=values[2 * index + 1]) for index, name in enumerate(POINTS)}
    return types_pb2.Landmarks(**points)


def from_landmarks(message: types_pb2.Landmarks) -> tuple[float, ...]:
    """Ten numbers, x0, y0 .. x4, y4, of a message."""
    points = [getattr(message, name) for name in POINTS]
    return tuple(value for point in points for value in (point.x, point.y))


def to_quality(quality: QualityFigures) -> pb.FaceQuality:
    """Quality as a message."""
    return pb.FaceQuality(
        overall=quality.overall,
        size=quality.size,
        sharpness=quality.sharpness,
        pose=quality.pose,
        yaw=quality.yaw,
        pitch=quality.pitch,
        roll=quality.roll,
    )


def from_quality(message: pb.FaceQuality) -> QualityFigures:
    """Quality of a message."""
    return QualityFigures(
        overall=message.overall,
        size=message.size,
        sharpness=message.sharpness,
        pose=message.pose,
        yaw=message.yaw,
        pitch=message.pitch,
        roll=message.roll,
    )
