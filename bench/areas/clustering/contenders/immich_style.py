"""Face by face, as Immich does it: each joins the person of the nearest face that has one, and nothing is seen twice.

Immich's rule with its defaults: a face with at least three faces within cosine distance 0.5, itself among them, may found a
person; one with fewer waits until all others have had their turn, and then may only join.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

MAX_DISTANCE: Final = 0.5
MIN_FACES: Final = 3
BLOCK_ROWS: Final = 1024


def warm_up(vectors: npt.NDArray[np.floating]) -> None:
    """Nothing but first pages."""
    group(vectors)


def group(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.integer]:
    """Labels (N,), in the order of the rows."""
    rows = vectors.astype(np.float32)
    persons = np.full(len(rows), -1, dtype=np.int64)
    waiting: list[tuple[int, npt.NDArray[np.intp]]] = []
    founded = 0
    for start in range(0, len(rows), BLOCK_ROWS):
        cosines = rows[start : start + BLOCK_ROWS] @ rows.T
        for row, near in enumerate(cosines, start):
            alike = np.flatnonzero(near >= 1.0 - MAX_DISTANCE)
            alike = alike[np.argsort(-near[alike], kind="stable")]
            if len(alike) < MIN_FACES:
                waiting.append((row, alike))
                continue
            persons[row] = _find_person(persons, alike)
            if persons[row] < 0:
                persons[row] = founded
                founded += 1
    for row, alike in waiting:
        persons[row] = _find_person(persons, alike)
    return persons


def _find_person(persons: npt.NDArray[np.int64], alike: npt.NDArray[np.intp]) -> int:
    """The person of the first of these faces that has one, else -1."""
    known = persons[alike]
    known = known[known >= 0]
    return int(known[0]) if len(known) else -1
