"""One face drawn: identity and appearance in, a premultiplied picture with its mask and exact truth out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.drawing.appearance import Appearance, Light
from demo.drawing.canvas import Canvas
from demo.drawing.features import draw_beard, draw_brow, draw_eye, draw_mouth, draw_nose, draw_skin
from demo.drawing.geometry import Head, Points, smooth_closed
from demo.drawing.hair import draw_back, draw_cap, draw_front, ears_show, hair_colour
from demo.drawing.identity import Identity, mix, shade
from demo.drawing.wear import draw_glasses, draw_hat, draw_occluder

WIDTH = 4.4
"""Width and height of a face patch, and where the head's origin lies in it, in head units."""
HEIGHT = 5.0
ORIGIN = (2.2, 2.3)

_FACE_ANGLES = np.linspace(-1.5, 1.5, 13)


@dataclass(frozen=True, slots=True)
class FacePatch:
    """A drawn head: picture (h, w, 3) uint8 BGR premultiplied by mask (h, w) uint8, in patch pixels `unit` to a head unit.

    `box` is (x, y, width, height), tight from hair-line to chin and ear to ear; `landmarks` is (5, 2) in
    InsightFace's order: left eye, right eye (as seen), nose tip, left and right mouth corner.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    unit: float


def _landmarks(head: Head, look: Appearance) -> Points:
    person = head.person
    half = person.mouth_width * (1 + 0.18 * look.smile)
    corner = person.mouth_y - (person.mouth_rest + 0.1 * look.smile)
    eyes = head.place(np.array([-person.eye_x, person.eye_x]), np.full(2, person.eye_y))
    nose = head.place_one(0.0, person.nose_y, person.nose_lift)
    mouth = head.place(np.array([-half, half]), np.full(2, corner), 0.06)
    return np.concatenate((eyes, nose, mouth))


def _box(head: Head, landmarks: Points) -> NDArray[np.float32]:
    person = head.person
    y = np.repeat(np.linspace(person.hairline_y, person.chin_y, 12), len(_FACE_ANGLES))
    surface = head.place_angles(np.tile(_FACE_ANGLES, 12), y)
    points = np.concatenate((surface, landmarks))
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate((low, high - low))


def _draw_ear(canvas: Canvas, head: Head, side: int) -> None:
    person = head.person
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    x = side * (person.width * 0.98 + person.ear_out * (0.35 + np.cos(turn)))
    y = person.eye_y + 0.2 + person.ear_size * np.sin(turn)
    z = -0.05 - 0.12 * np.cos(turn)
    canvas.fill(head.turn(x, y, z), shade(person.skin, 0.93))
    inner = 0.55
    x = side * (person.width * 0.98 + person.ear_out * (0.35 + inner * np.cos(turn)))
    y = person.eye_y + 0.2 + inner * person.ear_size * np.sin(turn)
    canvas.fill(head.turn(x, y, z), shade(person.skin, 0.76))


def _draw_neck(canvas: Canvas, head: Head, look: Appearance) -> None:
    person = head.person
    half = 0.56 * person.width if person.feminine else 0.68 * person.width
    top = head.turn(np.array([-half, half]), np.full(2, 0.7), np.full(2, -0.1))
    base = np.array([[half * 1.12, 2.35], [-half * 1.12, 2.35]], np.float32)
    canvas.fill(np.concatenate((top, base)), shade(person.skin, 0.8))


def _apply_light(canvas: Canvas, head: Head, light: Light) -> None:
    """Lambert's law on a stand-in ellipsoid, computed coarsely and stretched over the patch."""
    grid = np.linspace(0, 1, 24)
    x = (grid[None, :] * WIDTH - ORIGIN[0]) / 1.35
    y = (grid[:, None] * HEIGHT - ORIGIN[1] - 0.05) / 1.75
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0.03, 1))
    length = (light.x**2 + light.y**2 + light.z**2) ** 0.5
    facing = np.clip((x * light.x + y * light.y + z * light.z) / length, -0.25, 1)
    level = (light.ambient + light.directed * facing).astype(np.float32)
    field = level[:, :, None] * np.array(light.tint, np.float32)
    height, width = canvas.mask.shape
    stretched = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas.image = cv2.multiply(canvas.image, stretched, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def draw_face(person: Identity, look: Appearance, unit: float) -> FacePatch:
    """Draws one head with neck at `unit` pixels to a head unit (a face is about 2.2 units high)."""
    canvas = Canvas(WIDTH, HEIGHT, ORIGIN, unit)
    head = Head(person, look)
    hair = hair_colour(person, look.age)
    near = -1 if look.yaw > 0 else 1
    draw_back(canvas, head, look, hair)
    _draw_neck(canvas, head, look)
    if ears_show(person):
        _draw_ear(canvas, head, -near)
    canvas.fill(smooth_closed(head.outline(0.01), 1), person.skin)
    draw_cap(canvas, head, look, hair)
    if ears_show(person):
        _draw_ear(canvas, head, near)
    jaw = head.place_angles(np.linspace(-1.3, 1.3, 9), np.full(9, person.chin_y - 0.03))
    canvas.line(jaw, shade(person.skin, 0.88), 0.03)
    draw_skin(canvas, head, look)
    draw_beard(canvas, head, look, mix(hair, person.brow, 0.3))
    for side in (-1, 1):
        draw_eye(canvas, head, look, side)
        draw_brow(canvas, head, look, side, mix(person.brow, hair, 0.2))
    draw_mouth(canvas, head, look)
    draw_nose(canvas, head, look)
    draw_front(canvas, head, look, hair)
    draw_glasses(canvas, head, look)
    draw_hat(canvas, head, look)
    _apply_light(canvas, head, look.light)
    draw_occluder(canvas, head, look, hair)
    marks = _landmarks(head, look)
    box = _box(head, marks)
    box[:2] += np.array(ORIGIN, np.float32)
    return FacePatch(
        image=canvas.image, mask=canvas.mask, box=box * np.float32(unit), landmarks=canvas.to_pixels(marks), unit=unit
    )
