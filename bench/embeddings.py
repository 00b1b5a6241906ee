"""Generated embeddings with truth: what ArcFace makes of a photo library, without the library.

A face is ``unit(r * mode + sqrt(1 - r^2) * noise)``; a mode (an age, a beard) is ``unit(sqrt(a) * person +
sqrt(1 - a) * own)``; a person's centre is a mix of what all faces share, a demographic group, a look-alike
group, perhaps a family, and their own. All directions come from an anisotropic Gaussian whose spectrum gives
the wanted spread of strangers' cosines. On top: people's photo counts follow a power law, some people grow up
along an arc, shots come in bursts, some faces are blurred towards a common "junk" direction or wear masks,
some lie between two people, and some belong to nobody. The parameters were fitted so that pair cosines match
published genuine and impostor curves of R50/R100 models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

DIMENSION: Final = 512
JUNK: Final = -1
BLOB: Final = -2

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Profile:
    """An embedding space. ``stranger_std``: spread of raw directions' cosines; ``common``: share all faces
    have in common; ``tightness``: mean and std of a face's cosine to its mode; ``mode_share``: range of a
    mode's squared cosine to its person; ``group_share``: share of the demographic group; ``look_alike``: Beta
    parameters of the share of one of 300 look-alike groups; ``masked``: share of faces with a strong common
    attribute; ``blended``: share of faces halfway between two people.
    """

    stranger_std: float
    common: float
    tightness: tuple[float, float]
    mode_share: tuple[float, float]
    group_share: float
    look_alike: tuple[float, float]
    masked: float
    blended: float


PROFILES: Final = {
    "r100": Profile(0.0525, 0.020, (0.84, 0.05), (0.62, 0.97), 0.04, (0.8, 4.0), 0.03, 2e-4),
    "hard": Profile(0.0660, 0.028, (0.78, 0.07), (0.50, 0.95), 0.06, (0.8, 3.5), 0.05, 1e-3),
    "mobile": Profile(0.0950, 0.015, (0.915, 0.03), (0.78, 0.99), 0.05, (0.8, 4.0), 0.03, 2e-4),
}


@dataclass(frozen=True, slots=True)
class Shares:
    """The make-up of a library: blurred faces, isolated junk, one dense blurry blob, burst shots, near
    copies, people in families, people photographed while growing up; ``exponent`` of the power law of photos
    per person.
    """

    blurred: float = 0.07
    junk: float = 0.03
    blob: float = 0.015
    burst: float = 0.15
    copies: float = 0.01
    families: float = 0.12
    ageing: float = 0.08
    exponent: float = 1.7


@dataclass(frozen=True, slots=True)
class GeneratedFaces:
    """``vectors`` (N, 512) float32 unit rows in random order; ``truth`` (N,) int64: the person 0.., -1
    isolated junk (nobody), -2 the dense blurry blob; ``quality`` (N,) float32: low for blurred, junk and blob
    faces, so that a quality floor has work to do.
    """

    vectors: Floats
    truth: Ints
    quality: Floats

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """Faces the main figures are about: all but the blob, where a group is neither right nor wrong."""
        return np.not_equal(self.truth, BLOB)


def generate_faces(count: int, *, seed: int = 0, profile: str = "r100", shares: Shares | None = None) -> GeneratedFaces:
    """Generate ``count`` faces; the same arguments give the same faces. Memory about 8 KiB per face."""
    return _Generator(PROFILES[profile], shares or Shares(), seed).generate(count)


class _Generator:
    def __init__(self, profile: Profile, shares: Shares, seed: int) -> None:
        self.profile = profile
        self.shares = shares
        self.random = np.random.default_rng(seed)
        self.spectrum = _fit_spectrum(profile.stranger_std)
        self.rotation = np.linalg.qr(self.random.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)

    def generate(self, count: int) -> GeneratedFaces:
        junk, blob = int(count * self.shares.junk), int(count * self.shares.blob)
        sizes = self.draw_sizes(count - junk - blob)
        person = np.repeat(np.arange(len(sizes)), sizes)
        centres = self.draw_centres(len(sizes))
        modes, offsets = self.draw_modes(centres, sizes)
        junk_direction = self.directions(1)[0]
        vectors, blurred = self.draw_faces(person, modes, offsets, junk_direction)
        junk_faces = _unit(0.33 * junk_direction + 0.94 * self.directions(junk))
        blob_centre = _unit(0.6 * junk_direction + 0.8 * self.directions(1)[0])
        tightness = np.clip(self.random.normal(0.78, 0.09, blob), 0.35, 0.93)[:, None]
        blob_faces = _unit(tightness * blob_centre + np.sqrt(1 - tightness**2) * self.directions(blob))
        truth = np.concatenate([person, np.full(junk, JUNK), np.full(blob, BLOB)])
        poor = np.concatenate([blurred, np.ones(junk + blob, dtype=np.bool_)])
        quality = np.where(poor, self.random.uniform(0.05, 0.4, count), self.random.uniform(0.4, 1.0, count))
        order = self.random.permutation(count)
        everything = np.concatenate([vectors, junk_faces, blob_faces])[order] @ self.rotation
        return GeneratedFaces(everything, truth[order], quality[order].astype(np.float32))

    def directions(self, count: int) -> Floats:
        """Random directions (count, 512) of the anisotropic Gaussian, before rotation."""
        return _unit(self.random.standard_normal((count, DIMENSION), dtype=np.float32) * self.spectrum)

    def draw_sizes(self, faces: int) -> Ints:
        """Photos per person: a power law cut at 6 % of the faces (20..5000), summing to ``faces``."""
        largest = int(max(20, min(5000, 0.06 * faces)))
        weights = np.arange(1, largest + 1, dtype=np.float64) ** -self.shares.exponent
        sizes = 1 + self.random.choice(largest, size=faces, p=weights / weights.sum())
        people = int(np.searchsorted(np.cumsum(sizes), faces)) + 1
        sizes = sizes[:people]
        sizes[-1] -= int(sizes.sum()) - faces
        return sizes

    def draw_centres(self, people: int) -> Floats:
        profile = self.profile
        common = self.directions(1)[0]
        groups = self.directions(8)
        group = self.random.choice(8, people, p=[0.28, 0.2, 0.15, 0.12, 0.09, 0.07, 0.05, 0.04])
        look_alikes = self.directions(300)[self.random.integers(0, 300, people)]
        share = self.random.beta(*profile.look_alike, people)[:, None]
        own = _unit(np.sqrt(share) * look_alikes + np.sqrt(1 - share) * self.directions(people))
        relatives = self.random.permutation(people)[: int(people * self.shares.families)]
        start = 0
        while start + 1 < len(relatives):
            family = relatives[start : start + int(self.random.integers(2, 5))]
            start += len(family)
            resemblance = self.random.uniform(0.12, 0.38)
            own[family] = _unit(np.sqrt(resemblance) * self.directions(1)[0] + np.sqrt(1 - resemblance) * own[family])
            group[family] = group[family[0]]
        rest = 1 - profile.common - profile.group_share
        return _unit(
            np.sqrt(profile.common) * common + np.sqrt(profile.group_share) * groups[group] + np.sqrt(rest) * own
        )

    def draw_modes(self, centres: Floats, sizes: Ints) -> tuple[Floats, Ints]:
        """Modes of everybody in one array, and where each person's begin (K + 1,)."""
        people = len(sizes)
        counts = 1 + np.where(sizes > 2, self.random.poisson(0.8 * np.log(sizes)), 0)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        low, high = self.profile.mode_share
        share = (low + (high - low) * self.random.beta(2.2, 2.0, people))[np.repeat(np.arange(people), counts)][:, None]
        modes = _unit(
            np.sqrt(share) * centres[np.repeat(np.arange(people), counts)]
            + np.sqrt(1 - share) * self.directions(int(offsets[-1]))
        )
        for person in np.flatnonzero((sizes >= 20) & (self.random.random(people) < self.shares.ageing)):
            rows = np.arange(offsets[person], offsets[person + 1])
            if len(rows) < 4:
                continue
            centre = centres[person]
            across = self.directions(1)[0]
            across = _unit(across - (across @ centre) * centre)
            angle = np.linspace(-0.65, 0.65, len(rows))[:, None]  # the ends lie about 75 degrees apart
            modes[rows] = _unit(
                0.95 * (np.cos(angle) * centre + np.sin(angle) * across) + 0.31 * self.directions(len(rows))
            )
        return modes, offsets

    def draw_faces(
        self, person: Ints, modes: Floats, offsets: Ints, junk_direction: Floats
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        random, profile, faces = self.random, self.profile, len(person)
        counts = np.diff(offsets)
        mode = offsets[person] + (random.random(faces) ** 1.6 * counts[person]).astype(np.int64)  # unevenly used
        tightness = np.clip(random.normal(*profile.tightness, faces), 0.55, 0.97)
        blurred = random.random(faces) < self.shares.blurred
        tightness = np.where(blurred, random.uniform(0.25, 0.45, faces), tightness)[:, None].astype(np.float32)
        noise = self.directions(faces)
        noise[blurred] = _unit(0.28 * junk_direction + 0.96 * noise[blurred])
        vectors = _unit(tightness * modes[mode] + np.sqrt(1 - tightness**2) * noise)
        attributes = self.directions(10)
        masked = np.flatnonzero((random.random(faces) < profile.masked) & ~blurred)
        worn = attributes[random.integers(0, 10, len(masked))]
        vectors[masked] = _unit(0.62 * modes[mode[masked]] + 0.5 * worn + 0.6 * self.directions(len(masked)))
        blended = np.flatnonzero((random.random(faces) < profile.blended) & ~blurred)
        other = modes[mode[random.integers(0, faces, len(blended))]]
        vectors[blended] = _unit(0.62 * modes[mode[blended]] + 0.55 * other + 0.55 * self.directions(len(blended)))
        luck = random.random(faces)
        follows = np.concatenate([[False], person[1:] == person[:-1]])
        for row in np.flatnonzero(follows & (luck < self.shares.burst + self.shares.copies)):  # chains, as in video
            likeness = random.uniform(0.98, 0.999) if luck[row] < self.shares.copies else random.uniform(0.72, 0.96)
            step = np.sqrt(1 - likeness) * self.directions(1)[0]
            vectors[row] = _unit(np.sqrt(likeness) * vectors[row - 1] + step)
            blurred[row] = blurred[row - 1]
        return vectors, blurred


def _unit(vectors: npt.NDArray[np.floating]) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    units: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return units


def _fit_spectrum(std: float) -> Floats:
    """Standard deviations (512,) per axis, a power law whose random unit vectors have cosines of spread
    ``std`` (bisection).
    """
    ranks = np.arange(1, DIMENSION + 1, dtype=np.float64)
    low, high = 0.0, 3.0
    for _ in range(60):
        exponent = (low + high) / 2
        variances = ranks**-exponent
        if np.sqrt((variances**2).sum()) / variances.sum() < std:
            low = exponent
        else:
            high = exponent
    variances = ranks**-low
    deviations: Floats = np.sqrt(variances / variances.sum()).astype(np.float32)
    return deviations
