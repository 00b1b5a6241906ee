"""Eyes, brows, nose, mouth and skin: the parts of a face that lie on the front of the head."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from demo.drawing.appearance import Appearance
from demo.drawing.canvas import Canvas
from demo.drawing.geometry import Head, Points, convex_outline, smooth_closed
from demo.drawing.identity import BeardStyle, Colour, Identity, mix, shade

_Row = NDArray[np.float64]
_ALONG = np.linspace(-1, 1, 9)
_ARC = 1 - _ALONG**2
_CIRCLE = np.linspace(0, 2 * math.pi, 16, endpoint=False)
_COS, _SIN = np.cos(_CIRCLE), np.sin(_CIRCLE)
_WHITE: Colour = (236, 240, 242)
_DARK: Colour = (22, 20, 24)


def draw_eye(canvas: Canvas, head: Head, look: Appearance, side: int) -> None:
    """One eye; side -1 is the one on image left."""
    person = head.person
    cx, cy = side * person.eye_x, person.eye_y
    width = person.eye_width
    height = person.eye_height * look.eyes_open
    slope = -person.eye_tilt * _ALONG * side * width * 0.8
    x = cx + _ALONG * width
    upper = cy + slope - height * _ARC**0.75
    lower = cy + slope + 0.62 * height * _ARC
    socket = shade(person.skin, 0.9)
    fold = upper - person.lid_fold
    canvas.fill(
        head.place(np.concatenate((x, x[::-1])), np.concatenate((fold - 0.035 * _ARC, lower[::-1] + 0.05 * _ARC))),
        socket,
    )
    canvas.line(head.place(x, fold), shade(person.skin, 0.7), 0.014)
    canvas.fill(head.place(np.concatenate((x, x[::-1])), np.concatenate((upper, lower[::-1]))), _WHITE)
    for radius, colour in (
        (person.iris_radius, shade(person.iris, 0.62)),
        (person.iris_radius * 0.84, person.iris),
        (person.iris_radius * 0.42, _DARK),
    ):
        ix = np.clip(cx + look.gaze * width * 0.35 + radius * _COS, cx - width, cx + width)
        place = (ix - cx) / width
        arc = np.maximum(1 - place**2, 0.0)
        tilt = -person.eye_tilt * place * side * width * 0.8
        iy = np.clip(cy - 0.012 + radius * _SIN, cy + tilt - height * arc**0.75, cy + tilt + 0.62 * height * arc)
        canvas.fill(head.place(ix, iy), colour)
    glint = head.place_one(cx + look.gaze * width * 0.35 + 0.03, cy - 0.3 * person.iris_radius)
    if look.eyes_open > 0.5:
        canvas.dot(glint, person.iris_radius * 0.2, (250, 250, 250))
    canvas.line(head.place(x, upper), mix(_DARK, person.brow, 0.25), 0.012 + person.lash)
    canvas.line(head.place(x, lower), shade(person.skin, 0.68), 0.011)
    if person.lash > 0.03:
        outer = head.place(
            np.array([cx + side * width * 0.9, cx + side * width * 1.28]),
            np.array([cy + slope[-1 if side > 0 else 0], cy + slope[-1 if side > 0 else 0] - 0.07]),
        )
        canvas.line(outer, _DARK, person.lash * 0.8)


def draw_brow(canvas: Canvas, head: Head, look: Appearance, side: int, colour: Colour) -> None:
    """One eyebrow: a stroke that tapers outwards."""
    person = head.person
    along = (_ALONG + 1) / 2
    x = side * (person.eye_x - 0.22 * person.brow_length + (_ALONG * 0.75 + 0.2) * person.brow_length)
    base = person.eye_y - person.brow_gap - look.brows_up
    y = base - person.brow_arch * _ARC - person.brow_tilt * (along - 0.4) * 0.5
    half = person.brow_thickness * (1.0 - 0.7 * along**2) * 0.9 + 0.004
    canvas.fill(head.place(np.concatenate((x, x[::-1])), np.concatenate((y - half, (y + half)[::-1]))), colour)


def draw_nose(canvas: Canvas, head: Head, look: Appearance) -> None:
    """The nose, raised from the face so that it leads when the head turns; shaded away from the light."""
    person = head.person
    top, tip, width = person.eye_y - 0.02, person.nose_y, person.nose_width
    bulb, bridge = person.nose_bulb, person.nose_bridge
    skin = person.skin
    lit = 1 if look.light.x > 0 else -1

    def side_of_nose(side: int) -> tuple[_Row, _Row, _Row]:
        x = side * np.array([bridge, bridge * 0.85, bridge * 0.95, width * 0.72, width, width * 0.8, bulb * 0.7])
        y = np.array([top, top + 0.12, tip - 0.2, tip - 0.1, tip + 0.03, tip + 0.1, tip + 0.09])
        lift = np.array([0.0, 0.04, 0.1, 0.06, 0.02, 0.05, 0.12]) * person.nose_lift / 0.3
        return x, y, lift

    def project(x: _Row, y: _Row, lift: _Row) -> Points:
        # `place` takes one lift per call; a varying one needs the two ends and the share between them.
        low, high = head.place(x, y, 0.0), head.place(x, y, 1.0)
        return np.asarray(low + (high - low) * lift[:, None].astype(np.float32), np.float32)

    ridge_y = np.array([top, top + 0.15, tip - 0.15, tip - 0.02, tip + 0.08])
    ridge = project(np.zeros(5), ridge_y, np.array([0.04, 0.1, 0.2, 0.3, 0.22]) * person.nose_lift / 0.3)
    left, right = project(*side_of_nose(-1)), project(*side_of_nose(1))
    whole = np.concatenate((left, right[::-1]))
    canvas.fill(np.concatenate((left, ridge[::-1])), shade(skin, 1.03 if lit < 0 else 0.86))
    canvas.fill(np.concatenate((right, ridge[::-1])), shade(skin, 1.03 if lit > 0 else 0.86))
    under = smooth_closed(np.concatenate((whole[4:7], ridge[4:5], whole[7:10])), 1)
    canvas.fill(under, shade(skin, 0.78))
    high = person.nose_lift
    tip_point = head.place_one(0.0, tip - 0.02, high)
    bulb_ring = tip_point + bulb * 0.95 * np.stack((_COS, _SIN), axis=1).astype(np.float32)
    canvas.fill(convex_outline(np.concatenate((ridge[1:], bulb_ring))), shade(skin, 0.97))
    canvas.dot(head.place_one(0.02 * lit, tip - 0.06, high), bulb * 0.45, shade(skin, 1.07))
    for side in (-1, 1):
        canvas.dot(head.place_one(side * width * 0.5, tip + 0.075, high * 0.4), 0.022 + 0.08 * width, shade(skin, 0.45))


def draw_mouth(canvas: Canvas, head: Head, look: Appearance) -> None:
    """Lips, teeth and the dark between, by smile and opening."""
    person = head.person
    half = person.mouth_width * (1 + 0.18 * look.smile)
    gap = 0.22 * look.mouth_open * person.lower_lip / 0.1 * 0.8
    x = _ALONG * half
    corner = person.mouth_y - (person.mouth_rest + 0.1 * look.smile) * (1 - _ARC) * 1.0
    line = corner + 0.02 * _ARC
    bow = person.lip_bow * np.exp(-((_ALONG / 0.22) ** 2))
    upper = line - person.upper_lip * _ARC**0.6 + bow
    lower = line + gap * _ARC + person.lower_lip * _ARC**0.7
    outline = np.concatenate((upper, lower[::-1]))
    around = np.concatenate((x, x[::-1]))
    canvas.fill(head.place(around, outline, 0.06), person.lips)
    canvas.fill(head.place(around, np.concatenate((upper, line[::-1])), 0.06), shade(person.lips, 0.85))
    if gap > 0.03:
        inner = np.concatenate((line, (line + gap * _ARC)[::-1]))
        canvas.fill(head.place(around * 0.92, inner, 0.06), (34, 22, 58))
        teeth = np.concatenate((line, (line + np.minimum(gap * 0.6, 0.09) * _ARC)[::-1]))
        canvas.fill(head.place(around * 0.86, teeth, 0.06), (228, 236, 240))
    else:
        canvas.line(head.place(x, line, 0.06), shade(person.lips, 0.5), 0.016)
    canvas.line(head.place(_ALONG * half * 0.5, lower + 0.05 + 0.02 * _ARC, 0.05), shade(person.skin, 0.84), 0.014)


def draw_skin(canvas: Canvas, head: Head, look: Appearance) -> None:
    """Blush, freckles, moles and the lines that come with age."""
    person = head.person
    rosy = mix(person.skin, (110, 110, 225), 0.25 * person.blush)
    for side in (-1, 1):
        cheek = head.place(side * 0.52 + 0.2 * _COS, person.nose_y + 0.08 + 0.14 * _SIN)
        canvas.fill(cheek, rosy)
    if person.freckles:
        spots = np.random.default_rng(person.texture_seed)
        places = spots.normal(0, (0.3, 0.13), (person.freckles, 2))
        for px, py in places:
            canvas.dot(head.place_one(px * 1.3, person.nose_y - 0.12 + py), 0.018, shade(person.skin, 0.74))
    for mole in person.moles:
        canvas.dot(head.place_one(mole.x, mole.y), mole.radius, shade(person.skin, 0.38))
    if person.chin_cleft:
        chin = head.place(np.zeros(2), np.array([person.chin_y - 0.2, person.chin_y - 0.08]), 0.02)
        canvas.line(chin, shade(person.skin, 0.76), 0.022)
    old = float(np.clip((look.age - 38) / 40, 0, 1))
    if old > 0.05:
        tone = shade(person.skin, 1 - 0.24 * old)
        for side in (-1, 1):
            fold_x = side * np.array([person.nose_width + 0.06, person.mouth_width + 0.07, person.mouth_width + 0.08])
            fold_y = np.array([person.nose_y + 0.06, person.mouth_y - 0.1, person.mouth_y + 0.06])
            canvas.line(head.place(fold_x, fold_y), tone, 0.02)
            under_x = side * person.eye_x + _ALONG * person.eye_width
            canvas.line(head.place(under_x, person.eye_y + 0.16 + 0.05 * _ARC), tone, 0.016)
        for step in range(1 + int(old * 2.5)):
            y = np.full(9, person.eye_y - person.brow_gap - 0.2 - 0.11 * step)
            canvas.line(head.place(_ALONG * 0.42, y - 0.02 * _ARC), tone, 0.015)


def draw_beard(canvas: Canvas, head: Head, look: Appearance, hair: Colour) -> None:
    """Facial hair, drawn before the mouth so that the lips lie on it."""
    person: Identity = head.person
    if person.beard is BeardStyle.NONE:
        return
    density = person.beard_density * (0.4 if person.beard is BeardStyle.STUBBLE else 0.9)
    colour = mix(person.skin, hair, density)
    top = person.nose_y + 0.17
    mouth, half = person.mouth_y, person.mouth_width
    if person.beard in (BeardStyle.STUBBLE, BeardStyle.FULL):
        side_y = np.linspace(0.12, person.chin_y, 9)
        theta = np.full(9, 1.5)
        inner_x = np.array([0.86, 0.8, 0.7, 0.62, 0.45, 0.2])
        inner_y = np.array([0.2, 0.5, top + 0.12, top + 0.02, top - 0.01, top + 0.01])
        right, left = (head.place_angles(theta, side_y, 0.015), head.place_angles(-theta, side_y, 0.015))
        inner_right, inner_left = (head.place(inner_x, inner_y), head.place(-inner_x, inner_y))
        edge = np.concatenate((left, right[::-1], inner_right, inner_left[::-1]))
        canvas.fill(edge, colour)
        return
    strip_x = _ALONG * (half + 0.06)
    upper, lower = (top + 0.03 * (1 - _ARC), mouth - person.upper_lip * 0.6 + 0.08 * (1 - _ARC))
    canvas.fill(
        head.place(np.concatenate((strip_x, strip_x[::-1])), np.concatenate((upper, lower[::-1])), 0.04), colour
    )
    if person.beard is BeardStyle.GOATEE:
        chin_x = (half + 0.08) * _COS
        chin_y = (mouth + person.chin_y) / 2 + 0.06 + ((person.chin_y - mouth) / 2 + 0.03) * _SIN
        canvas.fill(head.place(chin_x, np.minimum(chin_y, person.chin_y - 0.01), 0.03), colour)
