"""Hair: what hangs behind the head, the cap over the skull with its hair-line, and the fringe in front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demo.drawing.appearance import Appearance, Hat
from demo.drawing.canvas import Canvas
from demo.drawing.geometry import Head, Points, smooth_closed
from demo.drawing.identity import Colour, HairStyle, Identity, mix, shade

_THETA = np.linspace(-1.42, 1.42, 17)
_LONG_STYLES = (HairStyle.LONG, HairStyle.WAVY, HairStyle.BOB)
_FRINGED = (*_LONG_STYLES, HairStyle.SHORT, HairStyle.CURLY, HairStyle.SPIKY)


def hair_colour(person: Identity, age: float) -> Colour:
    """The hair's colour at an age: greying sets in between 35 and 70, sooner for some."""
    grey = float(np.clip((age - 62 + 30 * person.greying) / 26, 0, 1)) * 0.85
    return mix(person.hair, (196, 198, 200), grey)


def hairline(person: Identity, age: float) -> NDArray[np.float64]:
    """Height of the hair-line at the angles `_THETA`: peak in the middle, temples lower, down before the ears."""
    line = person.hairline_y + person.hairline_peak * np.exp(-((_THETA / 0.3) ** 2))
    if person.style is HairStyle.RECEDING:
        line = line - 0.32 * np.exp(-(((np.abs(_THETA) - 0.55) / 0.3) ** 2)) - 0.08
    if not person.feminine:
        line = line - 0.05 * float(np.clip((age - 40) / 30, 0, 1))
    side = np.clip((np.abs(_THETA) - 0.85) / 0.5, 0, 1)
    line = np.maximum(line + side**1.5 * 0.95, person.crown_y + 0.12)
    return np.asarray(line, np.float64)


def draw_back(canvas: Canvas, head: Head, look: Appearance, colour: Colour) -> None:
    """The hair behind the head: long falls, curls, a bun. Drawn first."""
    person = head.person
    dark = shade(colour, 0.72)
    volume = person.volume
    if person.style is HairStyle.CURLY:
        canvas.fill(_curls(head.outline(0.16 + volume * 1.3, bottom=0.75), person), dark)
    if person.style is HairStyle.BUN:
        crown = head.turn(np.zeros(1), np.array([person.crown_y - 0.2]), np.array([-0.35]))
        canvas.dot(crown, 0.32 + 0.5 * volume, dark)
        canvas.dot(crown + np.float32(0.04), 0.22 + 0.4 * volume, shade(colour, 0.9))
    if person.style not in _LONG_STYLES:
        return
    fall = 0.75 if person.style is HairStyle.BOB else person.length + 0.5
    upper = smooth_closed(head.outline(0.1 + volume, bottom=0.5))
    centre = head.turn(np.zeros(1), np.array([0.5]), np.array([-0.3]))[0]
    half = person.width + 0.1 + volume * 0.9
    y = np.linspace(-0.3, 0.5 + fall, 9)
    bulge = 0.09 * np.sin(y * 5 + person.texture_seed % 7) if person.style is HairStyle.WAVY else 0.0 * y
    flare = half * (0.96 - 0.12 * (y - 0.3) / (fall + 0.2))
    right = np.stack((centre[0] + flare + bulge, y + centre[1] - 0.5), axis=1)
    left = np.stack((centre[0] - flare + bulge, y + centre[1] - 0.5), axis=1)[::-1]
    canvas.fill(upper, dark)
    canvas.fill(smooth_closed(np.concatenate((right, left)).astype(np.float32), 1), dark)


def _curls(outline: Points, person: Identity) -> Points:
    """The outline with scallops, placed by the person's own seed so that they are the same in each photo."""
    ring = smooth_closed(outline, 1)
    centre = ring.mean(axis=0)
    angle = np.arctan2(ring[:, 1] - centre[1], ring[:, 0] - centre[0])
    wave = 1 + 0.045 * np.abs(np.sin(angle * (5 + person.texture_seed % 4)))
    return np.asarray(centre + (ring - centre) * wave[:, None], np.float32)


def draw_cap(canvas: Canvas, head: Head, look: Appearance, colour: Colour) -> None:
    """The hair on the skull, then the skin of the face again inside the hair-line."""
    person = head.person
    if person.style is HairStyle.BALD:
        return
    line = hairline(person, look.age)
    if person.style is HairStyle.BUZZ:
        cap_colour, grow, low = mix(person.skin, colour, 0.62), 0.015, 0.15
    else:
        cap_colour, grow = (colour, 0.03 + person.volume * (0.6 if person.style is HairStyle.RECEDING else 0.8))
        low = 0.1 if person.style in (HairStyle.SHORT, HairStyle.SPIKY, HairStyle.RECEDING, HairStyle.BUN) else 0.55
    outline = smooth_closed(head.outline(grow, bottom=low), 1)
    if person.style is HairStyle.CURLY:
        outline = _curls(outline, person)
    if person.style is HairStyle.SPIKY:
        outline = _spikes(outline, person)
    canvas.fill(outline, cap_colour)
    down = np.linspace(0.0, 1.0, 7)
    right_y = line[-1] + (person.chin_y - 0.04 - line[-1]) * down
    theta = np.concatenate((_THETA, np.full(7, 1.5), np.full(7, -1.5)))
    y = np.concatenate((line, right_y, right_y[::-1]))
    canvas.fill(head.place_angles(theta, y, 0.004), person.skin)
    if person.style is not HairStyle.BUZZ:
        _draw_strands(canvas, head, person, colour, line)


def _spikes(outline: Points, person: Identity) -> Points:
    ring = smooth_closed(outline, 2)
    centre = ring.mean(axis=0)
    rng = np.random.default_rng(person.texture_seed)
    reach = np.where(ring[:, 1] < centre[1] - 0.15, rng.uniform(0.0, 0.2, len(ring)), 0.0)
    return np.asarray(centre + (ring - centre) * (1 + reach[:, None]), np.float32)


def _draw_strands(canvas: Canvas, head: Head, person: Identity, colour: Colour, line: NDArray[np.float64]) -> None:
    """Lighter and darker strokes from the parting to the hair-line."""
    rng = np.random.default_rng(person.texture_seed + 1)
    start = person.parting * 0.6
    grow = 0.02 + person.volume * 0.5
    for step in range(9):
        end = -1.3 + 2.6 * (step + rng.uniform(-0.3, 0.3)) / 8
        share = np.linspace(0, 1, 5)
        theta = start + (end - start) * share**0.7
        bottom = float(np.interp(end, _THETA, line))
        y = person.crown_y + 0.1 + (bottom - person.crown_y - 0.13) * share**1.6
        tone = shade(colour, 1.22 if step % 2 else 0.76)
        canvas.line(head.place_angles(theta, y, grow * (1 - share[-1] * 0.5)), tone, 0.022)


def draw_front(canvas: Canvas, head: Head, look: Appearance, colour: Colour) -> None:
    """The fringe over the forehead and long hair before the shoulders; over the features."""
    person = head.person
    line = hairline(person, look.age)
    if person.style in _FRINGED and person.fringe > 0 and look.hat is Hat.NONE:
        rng = np.random.default_rng(person.texture_seed + 2)
        inside = np.abs(_THETA) < 1.1
        theta, top = _THETA[inside], line[inside] - 0.06
        drop = person.fringe * (1 - 0.45 * np.exp(-(((theta - person.parting) / 0.22) ** 2)))
        drop = drop + person.fringe_slant * theta * 0.45 + rng.uniform(-0.035, 0.035, len(theta))
        low = np.minimum(line[inside] + np.maximum(drop, 0.0), person.eye_y - 0.12)
        wisps = np.random.default_rng(look.hair_noise).normal(0, 0.015, len(theta))
        edge = np.concatenate((theta, theta[::-1]))
        y = np.concatenate((top, np.maximum(low + wisps, top)[::-1]))
        canvas.fill(head.place_angles(edge, y, 0.03), shade(colour, 1.04))
        for start, end in zip(range(0, len(theta), 2), range(1, len(theta), 2), strict=False):
            stroke = head.place_angles(theta[[start, end]], np.array([top[start], low[end]]), 0.035)
            canvas.line(stroke, shade(colour, 0.8), 0.02)
    if person.style not in _LONG_STYLES:
        return
    fall = 0.7 if person.style is HairStyle.BOB else person.length
    for side in (-1, 1):
        temple = float(np.interp(side * 0.95, _THETA, line)) - 0.1
        angle = side * np.array([0.95, 1.15, 1.25, 1.25, 1.6, 1.65, 1.62, 1.5])
        y = np.array([temple, -0.3, 0.3, 0.85, 0.95, 0.4, -0.3, temple])
        locks = head.place_angles(angle, y, 0.07 + 0.3 * person.volume)
        tail = np.array([[0.05 * side, fall * 0.75], [0.22 * side, fall * 0.7]], np.float32)
        lock = np.concatenate((locks[:4], locks[3:4] + tail[:1], locks[4:5] + tail[1:], locks[4:]))
        canvas.fill(smooth_closed(lock, 1), shade(colour, 0.92))


def ears_show(person: Identity) -> bool:
    """Whether the ears show beside the hair."""
    return person.style not in (*_LONG_STYLES, HairStyle.CURLY)
