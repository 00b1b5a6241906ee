"""How a person looks in one photo: everything about a drawn face that is *not* who they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from demo.drawing.identity import Colour, Identity, mix


class Occluder(IntEnum):
    """What hides a part of the face."""

    NONE = 0
    HAND = 1
    HAIR = 2
    CUP = 3
    SCARF = 4


class Hat(IntEnum):
    """What is on the head."""

    NONE = 0
    BEANIE = 1
    CAP = 2
    BRIM = 3


@dataclass(frozen=True, slots=True)
class Light:
    """The light of a photo: direction in image axes (towards the light), colour, ambient and directed share."""

    x: float
    y: float
    z: float
    tint: Colour
    ambient: float
    directed: float


@dataclass(frozen=True, slots=True)
class Appearance:
    """One showing of a face. Angles in radians: yaw > 0 turns towards image right, pitch > 0 looks down, roll > 0 turns
    clockwise. Age in years at the photo's date."""

    yaw: float
    pitch: float
    roll: float
    smile: float
    mouth_open: float
    eyes_open: float
    brows_up: float
    gaze: float
    age: float
    weight: float
    glasses: bool
    dark_glasses: bool
    hat: Hat
    hat_colour: Colour
    occluder: Occluder
    occluder_side: int
    occluder_colour: Colour
    clothes: Colour
    collar: int
    hair_noise: int
    light: Light

    @property
    def occluded(self) -> bool:
        """Whether something beyond glasses and hat hides a part of the face."""
        return self.occluder is not Occluder.NONE or self.dark_glasses


def draw_light(rng: np.random.Generator) -> Light:
    """A light for a whole photo: mostly from above and in front, sometimes strongly from one side."""
    side = float(rng.normal(0, 0.55))
    tint = rng.normal(0, 0.03, 3)
    warm = float(rng.normal(0, 0.04))
    directed = float(rng.uniform(0.15, 0.6))
    return Light(
        x=side,
        y=float(rng.uniform(-0.9, 0.1)),
        z=float(rng.uniform(0.5, 1.0)),
        tint=(1.0 + float(tint[0]) - warm, 1.0 + float(tint[1]), 1.0 + float(tint[2]) + warm),
        ambient=float(rng.uniform(0.97, 1.1)) - 0.75 * directed,
        directed=directed,
    )


def random_colour(rng: np.random.Generator, low: int = 20, high: int = 235) -> Colour:
    """Any colour, evenly over the cube between low and high."""
    blue, green, red = rng.uniform(low, high, 3)
    return (float(blue), float(green), float(red))


def draw_appearance(
    rng: np.random.Generator, person: Identity, age: float, light: Light, *, nuisance: float = 1.0
) -> Appearance:
    """One appearance of a person at an age, under a photo's light.

    `nuisance` scales the spread of poses and the chance of occlusion (1 = the album's; training goes above).
    """
    turned = rng.random() < 0.15 * nuisance
    yaw = float(rng.normal(0, 0.24 * nuisance))
    if turned:
        yaw = float(rng.choice((-1, 1)) * rng.uniform(0.5, 0.95))
    hat = Hat(int(rng.integers(1, 4))) if rng.random() < 0.08 * nuisance else Hat.NONE
    occluder = Occluder(int(rng.integers(1, 5))) if rng.random() < 0.08 * nuisance else Occluder.NONE
    glasses = bool(rng.random() < person.glasses_habit)
    return Appearance(
        yaw=float(np.clip(yaw, -1.0, 1.0)),
        pitch=float(np.clip(rng.normal(0, 0.13 * nuisance), -0.4, 0.4)),
        roll=float(np.clip(rng.normal(0, 0.11 * nuisance), -0.5, 0.5)),
        smile=float(np.clip(rng.normal(0.35, 0.4), -0.4, 1.0)),
        mouth_open=float(max(0.0, rng.normal(-0.1, 0.35))),
        eyes_open=float(np.clip(rng.normal(0.95, 0.16), 0.12, 1.2)),
        brows_up=float(rng.normal(0, 0.025)),
        gaze=float(np.clip(rng.normal(0, 0.3), -0.8, 0.8)),
        age=age,
        weight=float(rng.normal(0, 0.015)),
        glasses=glasses,
        dark_glasses=bool(rng.random() < 0.03 * nuisance),
        hat=hat,
        hat_colour=random_colour(rng),
        occluder=occluder,
        occluder_side=int(rng.choice((-1, 1))),
        occluder_colour=random_colour(rng, 60, 240),
        clothes=mix(random_colour(rng), (125, 125, 125), 0.4),
        collar=int(rng.integers(3)),
        hair_noise=int(rng.integers(2**31)),
        light=light,
    )
