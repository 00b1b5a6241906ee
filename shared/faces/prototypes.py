"""Which faces stand for a person.

Good and different: a face's merit is its quality, more for one that looks at the camera and is large (see
:func:`measure_merit`); its worth is its merit times how well other faces of the person support it (the cosine to the
third most alike of them: a mislabelled face has none such, a rare look has). A greedy pass adds the face whose worth times
distance to those already chosen is greatest (farthest-point sampling, weighted). The primary face is also to be near the
person's centroid. At most one face of a photo and of a near-duplicate group, a quota per era where eras are known, a cap
over all.

A human's word goes before all that: a pinned face is the one of its era, a chosen one is among them, whatever they are
worth; both count towards the caps. A refused one is not, though it does support others. An unknown era is an era of its own.
Everything is deterministic: ties go to the smaller face id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.faces.centroid import compute_centroid
from shared.faces.embeddings import Vectors
from shared.faces.eras import ERA_ORDER, Era
from shared.faces.near_duplicates import FaceKey

SUPPORTING_FACES: Final = 3
LEAST_SUPPORT: Final = 0.05
"""So that among faces without support quality still decides."""

_BLOCK_ROWS: Final = 1024


class PrototypeRole(StrEnum):
    """Why a face is a prototype: the best of all, the best of an era, one more example, or better than nothing."""

    PRIMARY = "PRIMARY"
    TEMPORAL = "TEMPORAL"
    EXEMPLAR = "EXEMPLAR"
    FALLBACK = "FALLBACK"


class Choice(StrEnum):
    """A human's word on a face as a prototype: the one of its era, one of them, never one."""

    PINNED = "PINNED"
    CHOSEN = "CHOSEN"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class PrototypeCandidate:
    """One face of a person. ``merit`` 0..1, as by :func:`measure_merit`; faces of one ``near_duplicate_key`` are the same
    face in near-duplicate photos, ``None`` is like no other.
    """

    face_id: str
    asset_id: str
    quality: float
    merit: float
    near_duplicate_key: FaceKey | None = None
    era: Era | None = None
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class PrototypeRules:
    """Limits. A face below ``min_quality`` is chosen for want of better only; ``min_gain`` is the worth times distance below
    which one more exemplar adds nothing.
    """

    max_prototypes: int = 24
    max_per_era: int = 4
    min_quality: float = 0.2
    min_gain: float = 0.01


@dataclass(frozen=True, slots=True)
class ChosenPrototype:
    """``index`` into the candidates. At most one of an era is ``pinned``."""

    index: int
    role: PrototypeRole
    era: Era | None
    pinned: bool


def measure_merit(quality: float, size: float, yaw: float, pitch: float) -> float:
    """How fit a face is to stand for a person, 0..1: quality * cos(yaw) * cos(pitch) * sqrt(size); angles in degrees.

    ``size`` (0..1) and pose are part of quality already, as much as it takes to recognise a face. Here they count again,
    since others are compared with this one: a face in profile finds profiles. The cosines are the share of its breadth
    and height that is seen; roll does not count, as alignment turns it back. This house's own measure, not a published one.
    """
    seen = max(0.0, math.cos(math.radians(yaw))) * max(0.0, math.cos(math.radians(pitch)))
    return quality * seen * math.sqrt(min(1.0, max(0.0, size)))


def choose_prototypes(
    candidates: Sequence[PrototypeCandidate], vectors: Vectors, rules: PrototypeRules | None = None
) -> tuple[ChosenPrototype, ...]:
    """Choose among a person's faces; ``vectors`` (N, D) are the unit embeddings of ``candidates`` in the same order.

    What a human pinned or chose comes first, even where it breaks a limit. Of several pins of one era, as a new birth date
    may make them, the worthiest is pinned and the others are as chosen. The primary is the best of what was kept and of the
    good faces together. Raises ``ValueError`` if the two arguments differ in length.
    """
    if len(candidates) != len(vectors):
        raise ValueError("every candidate needs its vector")
    if not candidates:
        return ()
    selection = _Selection(candidates, vectors, rules or PrototypeRules())
    selection.keep_pinned()
    selection.keep_chosen()
    selection.add_primary()
    selection.add_best_per_era()
    selection.add_fallback()
    selection.add_exemplars()
    return tuple(selection.chosen)


def measure_support(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Cosine (N,) of each unit vector (N, D) to the third most alike other one, or the least alike of fewer, 0.05..1.

    A face that is the only one supports itself (1). O(N^2 * D) time, in blocks.
    """
    count = len(vectors)
    rank = min(SUPPORTING_FACES, count - 1)
    support = np.ones(count, dtype=np.float64)
    if rank == 0:
        return support
    for start in range(0, count, _BLOCK_ROWS):
        cosines = vectors[start : start + _BLOCK_ROWS] @ vectors.T
        rows = np.arange(len(cosines))
        cosines[rows, rows + start] = -2.0
        support[start : start + len(cosines)] = np.partition(cosines, count - rank, axis=1)[:, count - rank]
    return np.clip(support, LEAST_SUPPORT, 1.0)


class _Selection:
    """The state of one greedy pass."""

    def __init__(self, candidates: Sequence[PrototypeCandidate], vectors: Vectors, rules: PrototypeRules) -> None:
        self.candidates = candidates
        self.vectors = vectors
        self.rules = rules
        self.chosen: list[ChosenPrototype] = []
        quality = np.array([c.quality for c in candidates], dtype=np.float64)
        merit = np.array([c.merit for c in candidates], dtype=np.float64)
        self.worth: npt.NDArray[np.float64] = merit * measure_support(vectors)
        self.central = np.clip(vectors @ compute_centroid(vectors), LEAST_SUPPORT, 1.0)
        self.good: npt.NDArray[np.bool_] = quality >= rules.min_quality
        self.free = np.array([c.choice is not Choice.REFUSED for c in candidates], dtype=np.bool_)
        self.distance = np.ones(len(candidates), dtype=np.float64)
        # Rows in the order of their ids: the first maximum along it is the smallest id among equals.
        self.by_id = np.array(sorted(range(len(candidates)), key=lambda i: candidates[i].face_id), dtype=np.int64)
        self.eras = np.array([-1 if c.era is None else ERA_ORDER.index(c.era) for c in candidates])
        self.assets = np.unique([c.asset_id for c in candidates], return_inverse=True)[1]
        keys = [c.near_duplicate_key for c in candidates]
        names = {key: number for number, key in enumerate(sorted({key for key in keys if key is not None}))}
        self.groups = np.array([-1 if key is None else names[key] for key in keys])

    def keep_pinned(self) -> None:
        for index in self._kept(Choice.PINNED):
            role = PrototypeRole.EXEMPLAR if self.candidates[index].era is None else PrototypeRole.TEMPORAL
            pinned = not any(c.pinned and c.era is self.candidates[index].era for c in self.chosen)
            self._take(index, role, pinned=pinned)

    def keep_chosen(self) -> None:
        for index in self._kept(Choice.CHOSEN):
            self._take(index, PrototypeRole.EXEMPLAR, pinned=False)

    def add_primary(self) -> None:
        gain = self.worth * self.central
        best = max(range(len(self.chosen)), key=lambda at: gain[self.chosen[at].index], default=None)
        least = 0.0 if best is None else float(gain[self.chosen[best].index])
        if not self._take_best(self.free & self.good, gain, PrototypeRole.PRIMARY, least) and best is not None:
            self.chosen[best] = replace(self.chosen[best], role=PrototypeRole.PRIMARY)

    def add_best_per_era(self) -> None:
        """One per known era: the best good face, or, where the era has none, the best there is as a fallback."""
        for era in range(len(ERA_ORDER)):
            inside = self.eras == era
            if any(c.era is ERA_ORDER[era] for c in self.chosen):
                continue
            if not self._take_best(self.free & self.good & inside, self.worth, PrototypeRole.TEMPORAL):
                self._take_best(self.free & inside, self.worth, PrototypeRole.FALLBACK)

    def add_fallback(self) -> None:
        """A person must be findable: with nothing else chosen, the best of the faces below the quality floor."""
        if not self.chosen:
            self._take_best(self.free, self.worth, PrototypeRole.FALLBACK)

    def add_exemplars(self) -> None:
        while self._take_best(
            self.free & self.good, self.worth * self.distance, PrototypeRole.EXEMPLAR, self.rules.min_gain
        ):
            pass

    def _kept(self, choice: Choice) -> list[int]:
        """Faces of which a human said so, worthiest first."""
        kept = [int(index) for index in self.by_id if self.candidates[index].choice is choice]
        return sorted(kept, key=lambda index: -self.worth[index])

    def _take_best(
        self,
        allowed: npt.NDArray[np.bool_],
        gain: npt.NDArray[np.float64],
        role: PrototypeRole,
        least: float = 0.0,
    ) -> bool:
        if len(self.chosen) >= self.rules.max_prototypes:
            return False
        scored = np.where(allowed, gain, -1.0)[self.by_id]
        place = int(np.argmax(scored))
        if scored[place] < least:
            return False
        self._take(int(self.by_id[place]), role, pinned=False)
        return True

    def _take(self, index: int, role: PrototypeRole, *, pinned: bool) -> None:
        self.chosen.append(ChosenPrototype(index, role, self.candidates[index].era, pinned))
        self.free[index] = False
        self.free &= self.assets != self.assets[index]
        if self.groups[index] >= 0:
            self.free &= self.groups != self.groups[index]
        era = self.eras[index]
        if era >= 0 and sum(self.eras[c.index] == era for c in self.chosen) >= self.rules.max_per_era:
            self.free &= self.eras != era
        self.distance = np.minimum(self.distance, np.clip(1.0 - self.vectors @ self.vectors[index], 0.0, 1.0))
