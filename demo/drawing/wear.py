"""What a face wears or hides behind: glasses, hats, and things held before it."""

from __future__ import annotations

import math

import numpy as np

from demo.drawing.appearance import Appearance, Hat, Occluder
from demo.drawing.canvas import Canvas
from demo.drawing.geometry import Head, smooth_closed
from demo.drawing.identity import Colour, shade

_TURN = np.linspace(0, 2 * math.pi, 20, endpoint=False)


def draw_glasses(canvas: Canvas, head: Head, look: Appearance) -> None:
    """Round, oval or square frames by the person's taste; dark lenses hide the eyes."""
    if not (look.glasses or look.dark_glasses):
        return
    person = head.person
    power = (1.0, 0.8, 0.42)[person.glasses_style]
    cos, sin = np.cos(_TURN), np.sin(_TURN)
    x = np.sign(cos) * np.abs(cos) ** power
    y = np.sign(sin) * np.abs(sin) ** power
    wide = min(0.31, person.eye_x - 0.05)
    high = wide * (0.92, 0.7, 0.75)[person.glasses_style]
    colour: Colour = (20, 20, 20) if look.dark_glasses else person.glasses_colour
    for side in (-1, 1):
        rim = head.place(side * person.eye_x + wide * x, person.eye_y + 0.02 + high * y, 0.12)
        if look.dark_glasses:
            canvas.fill(rim, (44, 38, 40))
        canvas.line(np.concatenate((rim, rim[:1])), colour, 0.045)
        arm = head.place(
            side * np.array([person.eye_x + wide, 0.97 * person.width]), np.full(2, person.eye_y - 0.02), 0.05
        )
        canvas.line(arm, colour, 0.035)
    inner = person.eye_x - wide
    bridge = head.place(np.array([-inner, 0.0, inner]), person.eye_y + np.array([0.0, -0.04, 0.0]), 0.16)
    canvas.line(bridge, colour, 0.04)


def draw_hat(canvas: Canvas, head: Head, look: Appearance) -> None:
    """A beanie, a cap with a peak or a brimmed hat over the top of the head."""
    if look.hat is Hat.NONE:
        return
    person = head.person
    edge = person.hairline_y + 0.06
    colour, dark = look.hat_colour, shade(look.hat_colour, 0.68)
    theta = np.linspace(-1.5, 1.5, 11)
    if look.hat is Hat.BRIM:
        angle = np.concatenate((np.linspace(-1.7, 1.7, 11), np.linspace(1.7, -1.7, 11)))
        rim_y = np.concatenate((np.full(11, edge - 0.2), np.full(11, edge + 0.03)))
        canvas.fill(head.place_angles(angle, rim_y, 0.55), dark)
    canvas.fill(head.outline(0.12 + 0.3 * person.volume, bottom=edge), colour)
    band = np.concatenate(
        (
            head.place_angles(theta, np.full(11, edge - 0.22), 0.14 + 0.3 * person.volume),
            head.place_angles(theta[::-1], np.full(11, edge + 0.02), 0.14 + 0.3 * person.volume),
        )
    )
    canvas.fill(band, dark)
    if look.hat is Hat.CAP:
        peak_x = np.linspace(-0.62, 0.62, 9)
        back = head.place(peak_x, np.full(9, edge), 0.1)
        front = head.place(peak_x * 0.9, np.full(9, edge + 0.06), 0.75)
        canvas.fill(smooth_closed(np.concatenate((back, front[::-1])), 1), shade(colour, 0.85))


def draw_occluder(canvas: Canvas, head: Head, look: Appearance, hair: Colour) -> None:
    """A hand, a lock of hair, a cup or a scarf before a part of the face."""
    person, side = head.person, look.occluder_side
    if look.occluder is Occluder.HAND:
        palm = head.place_one(side * 0.5, person.chin_y - 0.2, 0.3)[0]
        skin = shade(person.skin, 0.93)
        for finger in range(4):
            base = palm + np.array([side * (0.3 - 0.17 * finger), 0.0], np.float32)
            tip = base + np.array([-side * 0.06, -0.52 - 0.1 * math.sin(finger)], np.float32)
            canvas.line(np.stack((base, tip)), shade(skin, 0.8), 0.18)
            canvas.line(np.stack((base, tip)), skin, 0.145)
        blob = palm + np.stack((0.42 * np.cos(_TURN), 0.1 + 0.34 * np.sin(_TURN)), axis=1).astype(np.float32)
        canvas.fill(blob, skin)
        wrist = np.array([[-0.25, 0.2], [0.25, 0.2], [0.35 + 0.3 * side, 1.6], [-0.3 + 0.3 * side, 1.6]], np.float32)
        canvas.fill(palm + wrist, skin)
    elif look.occluder is Occluder.HAIR:
        x = side * np.array([0.1, 0.35, 0.55, 0.75, 0.95, 0.9, 0.5])
        y = np.array([person.hairline_y, -0.5, 0.0, 0.5, 0.9, -0.3, person.hairline_y - 0.15])
        canvas.fill(smooth_closed(head.place(x, y, 0.15), 1), hair)
    elif look.occluder is Occluder.CUP:
        centre = head.place_one(side * 0.12, person.mouth_y + 0.16, 0.5)[0]
        body = np.array([[-0.34, -0.28], [0.34, -0.28], [0.28, 0.5], [-0.28, 0.5]], np.float32)
        canvas.fill(centre + body, look.occluder_colour)
        rim = np.stack((0.34 * np.cos(_TURN), -0.28 + 0.08 * np.sin(_TURN)), axis=1).astype(np.float32)
        canvas.fill(centre + rim, shade(look.occluder_colour, 0.6))
    elif look.occluder is Occluder.SCARF:
        low = person.chin_y - 0.22
        theta = np.linspace(-1.55, 1.55, 11)
        upper = head.place_angles(theta, low + 0.1 * np.cos(theta * 3), 0.1)
        under = head.place_angles(theta[::-1], np.full(11, person.chin_y - 0.02), 0.12)
        drop = under + np.array([0.0, 0.75], np.float32)
        canvas.fill(np.concatenate((upper, drop)), look.occluder_colour)
        canvas.line(upper, shade(look.occluder_colour, 0.8), 0.05)
