"""Who a drawn person is: the parameter vector that stays the same in every photo of them.

Lengths are in *head units*: half the width of an average head is 1, the eyes lie near y = -0.1, the hair-line
near y = -0.9 and the chin near y = +1.3 (y grows downwards). Colours are BGR, 0..255, as OpenCV has them.

Identities come from numbered seed spaces. The space is the first word of the seed sequence, so identities of
different spaces can never be the same one: what the model pack is trained on, what its thresholds are fitted
on and what the demo shows are disjoint by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Colour = tuple[float, float, float]


class SeedSpace(IntEnum):
    """Where an identity's seed is drawn from; the values are part of the seed."""

    TRAINING = 101
    VALIDATION = 202
    ALBUM = 303


class HairStyle(IntEnum):
    """The outline of the hair; colour, volume, length and fringe vary within a style."""

    BALD = 0
    BUZZ = 1
    SHORT = 2
    SPIKY = 3
    RECEDING = 4
    BOB = 5
    LONG = 6
    WAVY = 7
    CURLY = 8
    BUN = 9


class BeardStyle(IntEnum):
    """Facial hair, all of one person's life in the album."""

    NONE = 0
    STUBBLE = 1
    MOUSTACHE = 2
    GOATEE = 3
    FULL = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """A mole at a fixed place: centre (x, y) and radius in head units."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that photos of one person share. Lengths in head units, colours BGR."""

    feminine: bool
    texture_seed: int
    skin: Colour
    lips: Colour
    iris: Colour
    hair: Colour
    brow: Colour
    # head
    width: float
    chin_y: float
    crown_y: float
    jaw_power: float
    chin_power: float
    cheek_y: float
    ear_size: float
    ear_out: float
    # eyes and brows
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris_radius: float
    lid_fold: float
    lash: float
    brow_gap: float
    brow_length: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    # nose and mouth
    nose_y: float
    nose_width: float
    nose_bridge: float
    nose_bulb: float
    nose_lift: float
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    lip_bow: float
    mouth_rest: float
    # skin
    blush: float
    freckles: int
    moles: tuple[Mark, ...]
    chin_cleft: bool
    # hair
    style: HairStyle
    hairline_y: float
    hairline_peak: float
    volume: float
    length: float
    parting: float
    fringe: float
    fringe_slant: float
    greying: float
    beard: BeardStyle
    beard_density: float
    # habits
    glasses_habit: float
    glasses_style: int
    glasses_colour: Colour


_SKIN_TONES: tuple[Colour, ...] = (
    (205, 222, 250),
    (178, 204, 244),
    (150, 184, 232),
    (122, 160, 214),
    (96, 134, 190),
    (72, 104, 158),
    (54, 78, 122),
    (42, 58, 92),
)
_HAIR_COLOURS: tuple[Colour, ...] = (
    (24, 22, 26),
    (30, 36, 48),
    (36, 52, 80),
    (48, 76, 116),
    (70, 112, 160),
    (110, 170, 214),
    (150, 206, 236),
    (36, 70, 150),
    (50, 92, 196),
    (168, 168, 172),
)
_IRIS_COLOURS: tuple[Colour, ...] = (
    (24, 38, 62),
    (34, 66, 110),
    (60, 118, 124),
    (92, 140, 90),
    (190, 140, 76),
    (150, 134, 116),
)
_DYED: tuple[Colour, ...] = ((120, 60, 170), (150, 110, 40), (60, 40, 170), (120, 140, 60))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` of the way (0..1) from first to second."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or lighter, kept within 0..255."""
    return (min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor))


def _pick(rng: np.random.Generator, palette: tuple[Colour, ...], jitter: float) -> Colour:
    """A colour between two neighbours of a palette, with a little noise per channel."""
    place = rng.uniform(0, len(palette) - 1)
    low = min(int(place), len(palette) - 2)
    blend = mix(palette[low], palette[low + 1], place - low)
    noise = rng.normal(0, jitter, 3)
    return (
        float(np.clip(blend[0] + noise[0], 12, 255)),
        float(np.clip(blend[1] + noise[1], 12, 255)),
        float(np.clip(blend[2] + noise[2], 12, 255)),
    )


def _draw_moles(rng: np.random.Generator) -> tuple[Mark, ...]:
    count = int(rng.choice((0, 1, 2, 3), p=(0.45, 0.3, 0.15, 0.1)))
    return tuple(
        Mark(float(rng.uniform(-0.7, 0.7)), float(rng.uniform(-0.5, 1.1)), float(rng.uniform(0.025, 0.06)))
        for _ in range(count)
    )


def draw_identity(space: SeedSpace, seed: int, number: int) -> Identity:
    """Identity `number` of the given seed in the given space; the same three always give the same person."""
    rng = np.random.default_rng(np.random.SeedSequence([int(space), seed, number]))

    def between(low: float, high: float) -> float:
        # Beta(0.8, 0.8) is a little wider than uniform at the ends: people differ more, overlap less.
        return float(low + (high - low) * rng.beta(0.8, 0.8))

    feminine = bool(rng.random() < 0.5)
    skin = _pick(rng, _SKIN_TONES, 5)
    dark = sum(skin) < 400
    natural = _HAIR_COLOURS[:4] if dark else _HAIR_COLOURS
    hair = _pick(rng, natural, 6) if rng.random() > 0.03 else _DYED[int(rng.integers(len(_DYED)))]
    lips = mix(shade(skin, 0.78), (84, 64, 200) if feminine else (96, 92, 170), between(0.2, 0.75))
    styles = (
        (HairStyle.SHORT, HairStyle.BOB, HairStyle.LONG, HairStyle.WAVY, HairStyle.CURLY, HairStyle.BUN)
        if feminine
        else (
            HairStyle.BALD,
            HairStyle.BUZZ,
            HairStyle.SHORT,
            HairStyle.SPIKY,
            HairStyle.RECEDING,
            HairStyle.CURLY,
            HairStyle.SHORT,
            HairStyle.LONG,
        )
    )
    beard = BeardStyle.NONE if feminine else BeardStyle(int(rng.choice(5, p=(0.4, 0.15, 0.12, 0.13, 0.2))))
    return Identity(
        feminine=feminine,
        texture_seed=int(rng.integers(2**31)),
        skin=skin,
        lips=lips,
        iris=_pick(rng, _IRIS_COLOURS[:2] if dark else _IRIS_COLOURS, 6),
        hair=hair,
        brow=mix(hair, (24, 26, 34), between(0.1, 0.8)),
        width=between(0.86, 1.12),
        chin_y=between(1.14, 1.5) - (0.05 if feminine else 0.0),
        crown_y=between(-1.55, -1.3),
        jaw_power=between(1.7, 2.5) if feminine else between(1.9, 3.6),
        chin_power=between(1.5, 2.6),
        cheek_y=between(-0.1, 0.3),
        ear_size=between(0.2, 0.36),
        ear_out=between(0.04, 0.2),
        eye_x=between(0.34, 0.5),
        eye_y=between(-0.17, 0.0),
        eye_width=between(0.16, 0.27),
        eye_height=between(0.07, 0.16),
        eye_tilt=between(-0.2, 0.3),
        iris_radius=between(0.085, 0.13),
        lid_fold=between(0.02, 0.09),
        lash=between(0.02, 0.055) if feminine else between(0.008, 0.025),
        brow_gap=between(0.15, 0.34),
        brow_length=between(0.2, 0.34),
        brow_thickness=between(0.018, 0.05) if feminine else between(0.03, 0.085),
        brow_arch=between(0.0, 0.12),
        brow_tilt=between(-0.22, 0.22),
        nose_y=between(0.36, 0.62),
        nose_width=between(0.13, 0.31),
        nose_bridge=between(0.05, 0.13),
        nose_bulb=between(0.06, 0.16),
        nose_lift=between(0.17, 0.36),
        mouth_y=between(0.78, 0.96),
        mouth_width=between(0.24, 0.47),
        upper_lip=between(0.025, 0.11),
        lower_lip=between(0.04, 0.15),
        lip_bow=between(0.0, 0.05),
        mouth_rest=between(-0.05, 0.07),
        blush=between(0.0, 0.5),
        freckles=int(rng.integers(14, 46)) if rng.random() < (0.05 if dark else 0.22) else 0,
        moles=_draw_moles(rng),
        chin_cleft=bool(rng.random() < 0.2),
        style=styles[int(rng.integers(len(styles)))],
        hairline_y=between(-1.08, -0.72),
        hairline_peak=between(-0.08, 0.1),
        volume=between(0.06, 0.3),
        length=between(0.7, 2.2),
        parting=between(-0.7, 0.7),
        fringe=between(-0.15, 0.42),
        fringe_slant=between(-0.3, 0.3),
        greying=between(0.0, 1.0),
        beard=beard,
        beard_density=between(0.45, 0.95),
        glasses_habit=float(rng.choice((0.0, 0.15, 0.6, 0.9), p=(0.5, 0.2, 0.15, 0.15))),
        glasses_style=int(rng.integers(3)),
        glasses_colour=((24, 22, 22), (40, 50, 84), (120, 112, 110), (60, 30, 110))[int(rng.integers(4))],
    )
