"""Generated faces with truth, drawn once into files that are mapped from there: drawing takes 8 KiB of memory a face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.areas.clustering.apart import work_apart
from bench.embeddings import generate_faces
from shared.faces.embeddings import Vectors, normalise

PROFILE: Final = "r100"
SEED: Final = 0
SAME_SHOT: Final = 0.985
"""Cosine from which two faces of one person are taken to be of near-duplicate photos: the generator's near copies lie above
0.99, everything else below 0.98."""

LARGEST_SHOT: Final = 8
"""Photos a second apart that are near-duplicates of the first; more would be too long after it."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnFaces:
    """``vectors`` (N, 512) float16 unit rows; ``truth`` (N,) the person 0.., below 0 nobody; ``quality`` (N,) 0..1; ``shots``
    (N,): equal for the same face in near-duplicate photos, the number of the first of them.
    """

    vectors: npt.NDArray[np.float16]
    truth: Ints
    quality: npt.NDArray[np.float32]
    shots: Ints

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Vectors:
        """Unit vectors (n, 512) of some faces, as they are when read back from where they are stored."""
        return normalise(self.vectors[rows])


def draw_faces(folder: Path, count: int, *, with_shots: bool = True) -> DrawnFaces:
    """Draw ``count`` faces into ``folder``, unless they are there; without shots every photo is unlike all others."""
    names = [folder / f"{name}_{count}.npy" for name in ("vectors", "truth", "quality", "shots")]
    if not names[-1].exists():
        work_apart(_write_faces, names, count, with_shots)
    vectors, truth, quality, shots = (np.load(name, mmap_mode="r") for name in names)
    return DrawnFaces(vectors, np.array(truth), np.array(quality), np.array(shots))


def find_shots(vectors: Vectors, truth: Ints) -> Ints:
    """Which faces are of near-duplicate photos, by their likeness: (N,), the number of the first face of each shot."""
    shots = np.arange(len(truth))
    order = np.argsort(truth, kind="stable")
    starts = np.flatnonzero(np.diff(truth[order], prepend=truth[order[0]] - 1))
    for rows in np.split(order, starts[1:]):
        if truth[rows[0]] < 0:
            continue
        alike = vectors[rows] @ vectors[rows].T >= SAME_SHOT
        for at in np.flatnonzero(alike.sum(axis=1) > 1):
            leader = shots[rows[at]]
            free = rows[alike[at] & (shots[rows] == rows)]
            room = LARGEST_SHOT - int((shots[rows] == leader).sum())
            shots[free[free > leader][: max(0, room)]] = leader
    return shots


def _write_faces(names: list[Path], count: int, with_shots: bool) -> None:
    faces = generate_faces(count, seed=SEED, profile=PROFILE)
    shots = find_shots(faces.vectors, faces.truth) if with_shots else np.arange(count)
    arrays: list[npt.NDArray[np.generic]] = [faces.vectors.astype(np.float16), faces.truth, faces.quality, shots]
    for name, array in zip(names, arrays, strict=True):
        np.save(name, array)
