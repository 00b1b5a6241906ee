"""The head as a solid: where a point of the face lies in the picture when the head turns.

Cross-sections of the head are ellipses whose half-width and front and back depth depend on the height y. A
feature is given by its place (x, y) seen from the front; the surface supplies its depth, so that turning the
head displaces and foreshortens it as on a real one. Points that would turn behind the far cheek are held at
the silhouette instead, which keeps outlines closed without clipping.

Frames: head units as in `identity`; pictures in head units too (x right, y down, origin between the ears).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.drawing.appearance import Appearance
from demo.drawing.identity import Identity

Points = NDArray[np.float32]
"""Picture points (n, 2) in head units."""

_LEVELS = 40
_ANGLES = np.linspace(-math.pi, math.pi, 28, endpoint=False)


def _width_profile(person: Identity, weight: float, heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-width at each height: a superellipse above the cheeks, another (jaw and chin powers) below."""
    width = person.width * (1 + weight)
    up = np.clip((person.cheek_y - heights) / (person.cheek_y - person.crown_y), 0, 1)
    down = np.clip((heights - person.cheek_y) / (person.chin_y - person.cheek_y), 0, 1)
    upper = (1 - up**2.5) ** (1 / 2.3)
    lower = (1 - down**person.jaw_power) ** (1 / person.chin_power)
    return np.asarray(width * np.where(heights < person.cheek_y, upper, lower), np.float64)


class Head:
    """A person's head in one pose. All methods take head units and return picture points of shape (n, 2)."""

    def __init__(self, person: Identity, look: Appearance) -> None:
        self.person = person
        self._heights = np.linspace(person.crown_y, person.chin_y, _LEVELS)
        self._widths = _width_profile(person, look.weight, self._heights)
        rel = (self._heights - person.crown_y) / (person.chin_y - person.crown_y)
        self._front = 1.0 * np.clip(1 - np.abs(2 * rel - 1.05) ** 3.2 * 0.75, 0.0, 1.0)
        self._front[rel < 0.08] *= rel[rel < 0.08] / 0.08
        self._back = 1.12 * np.clip(1 - (np.abs(rel - 0.38) / 0.62) ** 2.2, 0.05, 1.0)
        sin, cos = math.sin, math.cos
        self._yaw = (sin(look.yaw), cos(look.yaw))
        self._pitch = (sin(look.pitch), cos(look.pitch))
        self._roll = (sin(look.roll), cos(look.roll))

    def turn(self, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]) -> Points:
        """Solid points (z towards the viewer) to the picture, with a weak perspective."""
        (sy, cy), (sp, cp), (sr, cr) = self._yaw, self._pitch, self._roll
        x1 = x * cy + z * sy
        z1 = z * cy - x * sy
        y1 = (y - 0.3) * cp + z1 * sp + 0.3
        z2 = z1 * cp - (y - 0.3) * sp
        near = 1.0 + 0.05 * z2
        x1, y1 = x1 * near, y1 * near
        out = np.empty((len(x1), 2), np.float32)
        out[:, 0] = x1 * cr - (y1 - 0.6) * sr
        out[:, 1] = x1 * sr + (y1 - 0.6) * cr + 0.6
        return out

    def place_angles(
        self, theta: NDArray[np.float64], y: NDArray[np.float64], grow: float = 0.0, lift: float = 0.0
    ) -> Points:
        """Points of the front at angles theta around the head's axis (0 = straight ahead) and heights y.

        `grow` widens the surface in all directions, `lift` raises the points straight forwards.
        """
        width = np.interp(y, self._heights, self._widths) + grow
        front = np.interp(y, self._heights, self._front) + grow
        sy, cy = self._yaw
        limit = np.arctan2(width * cy, front * abs(sy) + 1e-6)
        theta = np.minimum(theta, limit) if sy > 0 else np.maximum(theta, -limit)
        return self.turn(width * np.sin(theta), y, front * np.cos(theta) + lift)

    def place(self, x: NDArray[np.float64], y: NDArray[np.float64], lift: float = 0.0) -> Points:
        """Points of the front seen at (x, y) when the head looks at the viewer."""
        width = np.interp(y, self._heights, self._widths)
        theta = np.arcsin(np.clip(x / np.maximum(width, 1e-3), -1, 1))
        return self.place_angles(theta, y, 0.0, lift)

    def place_one(self, x: float, y: float, lift: float = 0.0) -> Points:
        """One point of the front, shape (1, 2)."""
        return self.place(np.array([x]), np.array([y]), lift)

    def outline(self, grow: float = 0.0, top: float = -9.0, bottom: float = 9.0, front_only: bool = False) -> Points:
        """Convex outline of the head between two heights, grown by `grow`; the front half only if asked."""
        keep = (self._heights >= top) & (self._heights <= bottom)
        heights = self._heights[keep][::2]
        theta = _ANGLES[np.abs(_ANGLES) <= math.pi / 2 + 1e-6] if front_only else _ANGLES
        width = self._widths[keep][::2] + grow
        front = self._front[keep][::2] + grow
        back = self._back[keep][::2] + grow
        depth = np.where(np.cos(theta)[None, :] > 0, front[:, None], back[:, None])
        x = (width[:, None] * np.sin(theta)).ravel()
        z = (depth * np.cos(theta)).ravel()
        rise = np.where(heights < self.person.crown_y + 0.5, grow, 0.0)
        y = np.repeat(heights - rise, len(theta))
        return convex_outline(self.turn(x, y, z))


def convex_outline(points: Points) -> Points:
    """The convex hull of points, in order around it."""
    return np.asarray(cv2.convexHull(points)[:, 0], np.float32)


def smooth_closed(points: Points, rounds: int = 2) -> Points:
    """Chaikin's corner cutting on a closed polygon: each round doubles the points and rounds the corners."""
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return points
