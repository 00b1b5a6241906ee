"""The faces all contenders group, in files that each maps into its own process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.areas.clustering.apart import work_apart
from bench.embeddings import generate_faces

PROFILE: Final = "r100"


@dataclass(frozen=True, slots=True)
class DrawnFaces:
    """``vectors``: a .npy of (N, 512) float16 unit rows, as a job streams them from PostgreSQL. ``truth`` (N,) int64: the
    person 0.., -1 isolated junk, -2 the dense blurry blob.
    """

    vectors: Path
    truth: npt.NDArray[np.int64]


def draw_faces(folder: Path, count: int, seed: int) -> DrawnFaces:
    """Generated faces in ``folder``, drawn there unless they are; elsewhere, as drawing takes 8 KiB a face."""
    vectors, truth = folder / f"vectors_{count}_{seed}.npy", folder / f"truth_{count}_{seed}.npy"
    if not truth.exists():
        work_apart(_write_faces, vectors, truth, count, seed)
    return DrawnFaces(vectors, np.load(truth))


def _write_faces(vectors: Path, truth: Path, count: int, seed: int) -> None:
    faces = generate_faces(count, seed=seed, profile=PROFILE)
    np.save(vectors, faces.vectors.astype(np.float16))
    np.save(truth, faces.truth)
