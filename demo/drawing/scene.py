"""Backgrounds: rooms, walls, streets and parks with things a careless detector takes for faces.

Balls, clocks, plates, flowers, sockets, signs and patterned posters: round things with dots in them, but no
dolls and no portraits, so that every face in the truth is a drawn person and nothing else is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.drawing.appearance import random_colour
from demo.drawing.identity import Colour, mix, shade

Image = NDArray[np.uint8]

_SKINLIKE: Colour = (140, 176, 226)


def _polygon(image: Image, points: NDArray[np.float64], colour: Colour) -> None:
    cv2.fillPoly(image, [np.rint(points * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)


def _disc(image: Image, x: float, y: float, radius: float, colour: Colour) -> None:
    cv2.circle(image, (round(x * 16), round(y * 16)), max(8, round(radius * 16)), colour, -1, cv2.LINE_AA, 4)


def _gradient(rng: np.random.Generator, width: int, height: int) -> Image:
    corners = rng.uniform(40, 225, (2, 2, 3)).astype(np.float32)
    base = corners.mean(axis=(0, 1))
    corners = base + (corners - base) * 0.5
    return np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _bricks(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    colour, size = (mix(random_colour(rng, 60, 200), (110, 120, 140), 0.6), int(rng.integers(24, 60)))
    for row, y in enumerate(range(0, height, size)):
        for x in range(-size * (row % 2), width, size * 2):
            tone = shade(colour, float(rng.uniform(0.85, 1.12)))
            cv2.rectangle(image, (x + 2, y + 2), (x + size * 2 - 2, y + size - 2), tone, -1)


def _stripes(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    colour, step = random_colour(rng), int(rng.integers(24, 110))
    upright = rng.random() < 0.6
    for at in range(0, width if upright else height, step):
        size = max(2, int(step * rng.uniform(0.2, 0.5)))
        corner, across = ((at, 0), (at + size, height)) if upright else ((0, at), (width, at + size))
        cv2.rectangle(image, corner, across, colour, -1)


def _dots(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    colour, step = random_colour(rng), int(rng.integers(30, 90))
    for y in range(0, height, step):
        for x in range(0, width, step):
            _disc(image, x, y, step * 0.22, colour)


def _trees(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    horizon = int(height * rng.uniform(0.35, 0.65))
    cv2.rectangle(image, (0, horizon), (width, height), (60, float(rng.uniform(110, 160)), 90), -1)
    for _ in range(int(rng.integers(3, 9))):
        x, size = rng.uniform(0, width), rng.uniform(0.06, 0.16) * width
        y = horizon - size * rng.uniform(0.6, 1.1)
        trunk = ((round(x - size * 0.1), round(y)), (round(x + size * 0.1), round(horizon + size * 0.3)))
        cv2.rectangle(image, *trunk, (50, 70, 95), -1)
        green = (float(rng.uniform(30, 80)), float(rng.uniform(90, 160)), float(rng.uniform(40, 110)))
        for _ in range(5):
            _disc(
                image,
                x + rng.normal(0, size * 0.35),
                y + rng.normal(0, size * 0.3),
                size * 0.45,
                shade(green, rng.uniform(0.8, 1.15)),
            )


def _houses(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    x = 0
    while x < width:
        size = int(rng.integers(width // 10, width // 4))
        top = int(height * rng.uniform(0.05, 0.45))
        colour = random_colour(rng, 70, 210)
        cv2.rectangle(image, (x, top), (x + size, height), colour, -1)
        pane, tone = max(14, size // 6), shade(colour, rng.uniform(0.5, 1.3))
        for wy in range(top + pane, height, pane * 2):
            for wx in range(x + pane // 2, x + size - pane, pane * 2):
                cv2.rectangle(image, (wx, wy), (wx + pane, wy + int(pane * 1.3)), tone, -1)
        x += size


def _room(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    floor = int(height * rng.uniform(0.6, 0.85))
    cv2.rectangle(image, (0, floor), (width, height), random_colour(rng, 50, 170), -1)
    for _ in range(int(rng.integers(1, 4))):
        x, y = int(rng.uniform(0, width * 0.85)), int(rng.uniform(0.02, 0.4) * height)
        w, h = int(rng.uniform(0.1, 0.3) * width), int(rng.uniform(0.12, 0.35) * height)
        cv2.rectangle(image, (x - 6, y - 6), (x + w + 6, y + h + 6), random_colour(rng, 20, 120), -1)
        inner = np.ascontiguousarray(_gradient(rng, w, h))
        (_stripes, _dots, _trees)[int(rng.integers(3))](inner, rng)
        region = image[y : y + h, x : x + w]
        region[:] = inner[: region.shape[0], : region.shape[1]]


_BACKDROPS: tuple[Callable[[Image, np.random.Generator], None], ...] = (
    _bricks,
    _stripes,
    _dots,
    _trees,
    _houses,
    _room,
    _room,
    _trees,
)


def _ball(image: Image, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    colour = random_colour(rng)
    _disc(image, x, y, r, colour)
    _disc(image, x - r * 0.3, y - r * 0.35, r * 0.22, mix(colour, (255, 255, 255), 0.5))
    if rng.random() < 0.5:
        cv2.ellipse(image, (round(x), round(y)), (round(r), round(r * 0.35)), 20, 0, 360, shade(colour, 0.6), 2)


def _clock(image: Image, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    _disc(image, x, y, r, random_colour(rng, 10, 120))
    _disc(image, x, y, r * 0.88, (235, 240, 240))
    for hour in range(12):
        _disc(
            image,
            x + r * 0.72 * math.cos(hour * math.pi / 6),
            y + r * 0.72 * math.sin(hour * math.pi / 6),
            r * 0.06,
            (30, 30, 30),
        )
    for length in (0.4, 0.65):
        angle = rng.uniform(0, 2 * math.pi)
        end = (round(x + r * length * math.cos(angle)), round(y + r * length * math.sin(angle)))
        cv2.line(image, (round(x), round(y)), end, (30, 30, 30), max(1, round(r * 0.07)), cv2.LINE_AA)


def _flower(image: Image, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    colour, petals = random_colour(rng, 60, 250), int(rng.integers(5, 11))
    for petal in range(petals):
        angle = petal * 2 * math.pi / petals
        _disc(image, x + r * 0.62 * math.cos(angle), y + r * 0.62 * math.sin(angle), r * 0.36, colour)
    _disc(image, x, y, r * 0.4, random_colour(rng, 20, 140))


def _plate(image: Image, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    """A pizza or a biscuit: skin-coloured, round, with dark dots; the hardest of the lot."""
    colour = mix(_SKINLIKE, random_colour(rng), rng.uniform(0, 0.4))
    axes = (round(r * rng.uniform(0.75, 1.0)), round(r))
    cv2.ellipse(image, (round(x), round(y)), axes, 0, 0, 360, shade(colour, 0.75), -1, cv2.LINE_AA)
    cv2.ellipse(image, (round(x), round(y)), (round(axes[0] * 0.9), round(r * 0.9)), 0, 0, 360, colour, -1, cv2.LINE_AA)
    spot = random_colour(rng, 10, 120)
    for _ in range(int(rng.integers(2, 9))):
        angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.65) * r
        _disc(image, x + reach * math.cos(angle), y + reach * math.sin(angle), r * rng.uniform(0.06, 0.16), spot)


def _sign(image: Image, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    colour = random_colour(rng)
    sides = int(rng.choice((3, 4, 8)))
    angle = np.arange(sides) * 2 * math.pi / sides + math.pi / sides
    _polygon(image, np.stack((x + r * np.cos(angle), y + r * np.sin(angle)), axis=1), colour)
    text = "".join(rng.choice(list("ABEHKLMNORSTUVX0123456789"), int(rng.integers(2, 6))))
    ink = (250, 250, 250) if sum(colour) < 380 else (20, 20, 20)
    at = (round(x - r * 0.65), round(y + r * 0.15))
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, r / 55, ink, max(1, round(r / 24)), cv2.LINE_AA)


def _socket(image: Image, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    """Two holes above a slot: what people see faces in."""
    colour = random_colour(rng, 150, 250)
    cv2.rectangle(image, (round(x - r), round(y - r)), (round(x + r), round(y + r)), shade(colour, 0.8), -1)
    cv2.rectangle(image, (round(x - r * 0.9), round(y - r * 0.9)), (round(x + r * 0.9), round(y + r * 0.9)), colour, -1)
    for side in (-1, 1):
        _disc(image, x + side * r * 0.4, y - r * 0.2, r * 0.14, (40, 40, 40))
    cv2.line(
        image,
        (round(x - r * 0.3), round(y + r * 0.45)),
        (round(x + r * 0.3), round(y + r * 0.45)),
        (40, 40, 40),
        max(1, round(r * 0.1)),
    )


def _blob(image: Image, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    """A plain rounded shape in any colour, skin among them: a jar, a hand, a lamp, a pear."""
    angle = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    reach = r * (1 + 0.25 * np.sin(angle * rng.integers(1, 4) + rng.uniform(0, 6)))
    colour = mix(_SKINLIKE, random_colour(rng), rng.uniform(0, 1))
    _polygon(
        image, np.stack((x + reach * np.cos(angle) * rng.uniform(0.6, 1), y + reach * np.sin(angle)), axis=1), colour
    )


_DISTRACTORS = (_ball, _clock, _flower, _plate, _sign, _socket, _blob, _plate)


def draw_background(rng: np.random.Generator, width: int, height: int) -> Image:
    """A backdrop of shape (height, width, 3) with some distractors, not yet lit or noisy."""
    image = np.ascontiguousarray(_gradient(rng, width, height))
    _BACKDROPS[int(rng.integers(len(_BACKDROPS)))](image, rng)
    for _ in range(int(rng.integers(2, 10))):
        radius = float(np.exp(rng.uniform(math.log(8), math.log(max(9.0, 0.14 * width)))))
        kind = _DISTRACTORS[int(rng.integers(len(_DISTRACTORS)))]
        kind(image, rng, float(rng.uniform(0, width)), float(rng.uniform(0, height)), radius)
    sigma = float(rng.choice((0.0, 1.0, 2.5, 5.0)))
    if sigma:
        small = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / 2 + 0.3)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return image
