"""One photo: a background, people placed in it back to front, then the camera's light, blur and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.drawing.appearance import Appearance, Light, draw_appearance, draw_light
from demo.drawing.face import HEIGHT, ORIGIN, WIDTH, FacePatch, draw_face
from demo.drawing.identity import Colour, Identity, mix, shade
from demo.drawing.scene import Image, draw_background

MIN_FACE = 36.0
MAX_FACE = 300.0
_FEET = 9.5
"""How far below the head's origin the feet are, in head units."""
_FACE_UNITS = 2.2
"""A face box is about this many head units high; used to choose a scale, the truth is measured."""


@dataclass(frozen=True, slots=True)
class Sitter:
    """Who is in a photo, and how old they are in it. `key` is the caller's own name for them."""

    key: str
    identity: Identity
    age: float


@dataclass(frozen=True, slots=True)
class FaceTruth:
    """A face in a photo: box (x, y, width, height) and landmarks (5, 2), float32 pixels of the upright photo."""

    key: str
    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    occluded: bool
    blur: float


@dataclass(frozen=True, slots=True)
class Photo:
    """A finished photo, BGR uint8 (h, w, 3), with the truth of its faces."""

    image: Image
    faces: tuple[FaceTruth, ...]


@dataclass(frozen=True, slots=True)
class _Spot:
    """A head's place: the origin of the head in photo pixels, and pixels to a head unit."""

    x: float
    y: float
    unit: float


def _clash(spot: _Spot, other: _Spot) -> bool:
    """Whether the nearer of two people (the lower chin) would hide a part of the other's face."""
    front, back = (spot, other) if spot.y + 1.3 * spot.unit > other.y + 1.3 * other.unit else (other, spot)
    across = abs(front.x - back.x)
    heads = across < 1.75 * front.unit + 1.25 * back.unit and front.y - 2.0 * front.unit < back.y + 1.5 * back.unit
    shoulders = across < 2.3 * front.unit + 1.2 * back.unit and front.y + 1.4 * front.unit < back.y + 1.5 * back.unit
    return heads or shoulders


def _find_spots(rng: np.random.Generator, count: int, width: int, height: int) -> list[_Spot]:
    """Places for up to `count` heads whose faces do not hide each other; fewer where there is no room."""
    largest = min(MAX_FACE, 0.62 * height, 0.85 * width / max(1, count) * 1.1)
    typical = float(np.exp(rng.uniform(np.log(MIN_FACE), np.log(max(largest, MIN_FACE + 1)))))
    spots: list[_Spot] = []
    for _ in range(count):
        for _ in range(25):
            size = float(np.clip(typical * np.exp(rng.normal(0, 0.22)), MIN_FACE, largest))
            unit = size / _FACE_UNITS
            x = float(rng.uniform(1.5 * unit, width - 1.5 * unit))
            standing = 0.74 * height - _FEET * unit
            y = float(rng.uniform(max(1.9 * unit, standing), max(height - 1.8 * unit, standing + 1)))
            spot = _Spot(x, y, unit)
            if not any(_clash(spot, other) for other in spots):
                spots.append(spot)
                break
    return sorted(spots, key=lambda spot: spot.y + 1.3 * spot.unit)


def _draw_body(image: Image, spot: _Spot, person: Identity, look: Appearance) -> None:
    """Shoulders, chest, arms and legs, as far as they are in the photo."""
    wide = 1.75 if person.feminine else 2.1
    torso = np.array(
        [[0.45, 1.5], [0.75, 1.75], [wide * 0.82, 1.98], [wide, 2.5], [wide * 1.02, 5.6], [wide * 0.7, 5.8]], np.float32
    )
    leg = np.array([[0.03, 5.6], [wide * 0.72, 5.6], [wide * 0.66, _FEET], [0.12, _FEET]], np.float32)
    arm = np.array([[wide * 0.7, 3.0], [wide * 0.76, 3.0], [wide * 0.78, 5.7], [wide * 0.68, 5.7]], np.float32)
    flip = np.array([-1, 1], np.float32)

    def fill(points: NDArray[np.float32], colour: Colour) -> None:
        pixels = (points * spot.unit + np.array([spot.x, spot.y], np.float32)) * 16
        cv2.fillPoly(image, [np.rint(pixels).astype(np.int32)], colour, cv2.LINE_AA, 4)

    lit = shade(look.clothes, look.light.ambient + 0.5 * look.light.directed)
    trousers = shade(mix(lit, (70, 60, 56), 0.75), 0.8)
    for legs in (leg, leg * flip):
        fill(legs, trousers)
    fill(np.concatenate((torso, torso[::-1] * flip)), lit)
    for arms in (arm, arm * flip):
        fill(arms, shade(lit, 0.75))


def _draw_collar(image: Image, spot: _Spot, look: Appearance, person: Identity) -> None:
    """The edge of the clothes over the neck: round, V or polo, drawn after the head."""
    depth = (1.95, 2.35, 1.75)[look.collar]
    half = 0.56 * person.width if person.feminine else 0.68 * person.width
    lit = shade(look.clothes, look.light.ambient + 0.5 * look.light.directed)
    edge = np.array(
        [
            [-half * 1.4, 1.72],
            [-half * 0.96, 1.62],
            [0, depth],
            [half * 0.96, 1.62],
            [half * 1.4, 1.72],
            [half * 1.4, 3],
            [-half * 1.4, 3],
        ],
        np.float32,
    )
    pixels = (edge * spot.unit + np.array([spot.x, spot.y], np.float32)) * 16
    cv2.fillPoly(image, [np.rint(pixels).astype(np.int32)], lit, cv2.LINE_AA, 4)
    cv2.polylines(
        image,
        [np.rint(pixels[:5]).astype(np.int32)],
        False,
        shade(lit, 0.8),
        max(1, round(spot.unit * 0.06)),
        cv2.LINE_AA,
        4,
    )


def _paste(image: Image, patch: FacePatch, spot: _Spot) -> NDArray[np.float32]:
    """Puts a head at its spot; returns the offset that maps patch points, scaled to the photo, into it."""
    width, height = round(WIDTH * spot.unit), round(HEIGHT * spot.unit)
    left, top = (round(spot.x - ORIGIN[0] * spot.unit), round(spot.y - ORIGIN[1] * spot.unit))
    colour = cv2.resize(patch.image, (width, height), interpolation=cv2.INTER_AREA)
    cover = cv2.resize(patch.mask, (width, height), interpolation=cv2.INTER_AREA)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(image.shape[1], left + width), min(image.shape[0], top + height)
    region = image[y0:y1, x0:x1]
    colour = colour[y0 - top : y1 - top, x0 - left : x1 - left]
    keep = cv2.merge([255 - cover[y0 - top : y1 - top, x0 - left : x1 - left]] * 3)
    region[:] = cv2.add(cv2.multiply(region, keep, scale=1 / 255), colour)
    return np.array([left, top], np.float32)


def _expose(rng: np.random.Generator, image: Image, light: Light) -> tuple[Image, float]:
    """Exposure, blur and noise of the camera. Returns the photo and the blur's sigma in pixels."""
    gain = float(np.exp(rng.normal(-0.03, 0.13)))
    contrast = float(rng.uniform(0.8, 1.12))
    sigma = float(rng.choice((0.0, rng.uniform(0.4, 1.3)), p=(0.6, 0.4)))
    if sigma:
        image = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8, copy=False)
    levels = np.clip((np.arange(256, dtype=np.float32) - 128) * contrast + 128, 0, 255) * gain
    image = cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8)).astype(np.uint8, copy=False)
    strength = float(rng.uniform(0, 7))
    if strength > 1:
        # One tile of noise, shifted about: as random to a network as fresh noise, and far cheaper.
        tile = rng.normal(0, strength, (199, 211, 3)).astype(np.int16)
        rows, columns = -(-image.shape[0] // 199), -(-image.shape[1] // 211)
        noise = np.tile(tile, (rows, columns, 1))[: image.shape[0], : image.shape[1]]
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image, sigma


def _moments_later(look: Appearance, rng: np.random.Generator) -> Appearance:
    """The same appearance after the head and the face have moved a little."""
    yaw, pitch, roll, smile = rng.normal(0, (0.08, 0.04, 0.04, 0.15))
    return replace(
        look,
        yaw=float(np.clip(look.yaw + yaw, -1, 1)),
        pitch=look.pitch + float(pitch),
        roll=look.roll + float(roll),
        smile=float(np.clip(look.smile + smile, -0.4, 1)),
    )


def _draw_sitter(image: Image, sitter: Sitter, look: Appearance, spot: _Spot) -> FaceTruth:
    """Draws one person into the photo and says where the face is; the blur is not known yet."""
    # Small heads are drawn larger and averaged down: cleaner edges than drawing them small.
    drawing_unit = float(np.clip(spot.unit * 1.5, 32.0, max(48.0, spot.unit)))
    patch = draw_face(sitter.identity, look, drawing_unit)
    _draw_body(image, spot, sitter.identity, look)
    offset = _paste(image, patch, spot)
    _draw_collar(image, spot, look, sitter.identity)
    scale = np.float32(spot.unit / patch.unit)
    box = patch.box * scale
    box[:2] += offset
    return FaceTruth(sitter.key, box, patch.landmarks * scale + offset, look.occluded, 0.0)


def draw_photo(
    rng: np.random.Generator,
    sitters: Sequence[Sitter],
    width: int,
    height: int,
    *,
    nuisance: float = 1.0,
    burst: int = 0,
) -> Photo:
    """Draws a photo of the sitters, as many of them as there is room for, in the order given.

    The same `rng` state with another `burst` gives a near-duplicate: the same scene a moment later.
    """
    moment = np.random.default_rng(burst)
    light = draw_light(rng)
    image = draw_background(rng, width, height)
    spots = _find_spots(rng, len(sitters), width, height)
    drawn: list[FaceTruth] = []
    for spot, sitter in zip(spots, sitters, strict=False):
        look = draw_appearance(rng, sitter.identity, sitter.age, light, nuisance=nuisance)
        if burst:
            look = _moments_later(look, moment)
        drawn.append(_draw_sitter(image, sitter, look, spot))
    image, blur = _expose(rng, image, light)
    return Photo(image, tuple(replace(face, blur=blur) for face in drawn))


def draw_portrait(rng: np.random.Generator, sitter: Sitter, face_height: float, *, nuisance: float = 1.0) -> Photo:
    """Draws one face of about `face_height` pixels, filling a small square photo: training for the recogniser."""
    unit = face_height / _FACE_UNITS
    side = round(4.2 * unit)
    light = draw_light(rng)
    image = draw_background(rng, side, side)
    look = draw_appearance(rng, sitter.identity, sitter.age, light, nuisance=nuisance)
    shift = rng.uniform(-0.5, 0.5, 2)
    spot = _Spot(side / 2 + float(shift[0]), 0.45 * side + float(shift[1]), unit)
    face = _draw_sitter(image, sitter, look, spot)
    image, blur = _expose(rng, image, light)
    return Photo(image, (replace(face, blur=blur),))
