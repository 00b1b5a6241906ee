"""Whose face is it? Candidates against everything known of every person, in one product.

A person's references are their prototypes and mode centroids. The score of a person is the highest cosine to
any of them; the margin is that score minus the score of the best *other* person; the support is the number of
their prototypes (not centroids) above the floor. Probability comes later, from
:mod:`shared.faces.calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.faces.embeddings import Vectors

ARCFACE_FLOOR: Final = 0.3
"""From what cosine on a face is worth asking about, with a 512-d ArcFace model (R50/R100) whose pack names no floor."""

NO_RIVAL_SCORE: Final = 0.0
"""What a person is compared with where there is no other, or only opposite ones: strangers have cosine 0 on average."""

_BLOCK_NUMBERS: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class References:
    """What is known. ``vectors`` (M, D) unit rows; ``owners`` (M,) person 0..P-1 of each; ``exemplars`` (M,)
    True for a prototype, False for a centroid. ``persons`` is P; a person may have no reference and then
    scores -1.

    Raises ``ValueError`` for arrays of unequal length or an owner outside 0..P-1.
    """

    vectors: Vectors
    owners: npt.NDArray[np.int64]
    exemplars: npt.NDArray[np.bool_]
    persons: int

    def __post_init__(self) -> None:
        if not len(self.vectors) == len(self.owners) == len(self.exemplars):
            raise ValueError("references need one owner and one kind per vector")
        if len(self.owners) and (int(self.owners.min()) < 0 or int(self.owners.max()) >= self.persons):
            raise ValueError("an owner of a reference is not one of the persons")


@dataclass(frozen=True, slots=True)
class PersonScores:
    """Every candidate against every person: ``scores`` (N, P) float32 and ``support`` (N, P) int32."""

    scores: npt.NDArray[np.float32]
    support: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reference that spoke for a match: its row in :class:`References` and its cosine."""

    reference: int
    score: float


@dataclass(frozen=True, slots=True)
class Match:
    """A candidate matched to one person, with what spoke for it and who came second.

    ``candidate`` and ``person`` are indices; ``exemplars`` are the best prototypes of that person, best
    first. Without another person ``runner_up`` is ``None`` and the margin is taken against cosine 0.
    """

    candidate: int
    person: int
    score: float
    margin: float
    support: int
    runner_up: int | None
    runner_up_score: float
    exemplars: tuple[Evidence, ...]


def score_persons(candidates: Vectors, references: References, floor: float) -> PersonScores:
    """Score candidates (N, D) for all persons, in blocks; result memory is N * P * 8 bytes."""
    count = len(candidates)
    scores = np.full((count, references.persons), -1.0, dtype=np.float32)
    support = np.zeros((count, references.persons), dtype=np.int32)
    if count == 0 or len(references.owners) == 0:
        return PersonScores(scores, support)
    order = np.argsort(references.owners, kind="stable")
    owners = references.owners[order]
    firsts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    present = owners[firsts]
    vectors, exemplars = references.vectors[order], references.exemplars[order]
    step = max(1, _BLOCK_NUMBERS // len(owners))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        cosines = candidates[rows] @ vectors.T
        scores[rows, present] = np.maximum.reduceat(cosines, firsts, axis=1)
        support[rows, present] = np.add.reduceat((cosines >= floor) & exemplars, firsts, axis=1, dtype=np.int32)
    return PersonScores(scores, support)


def explain_match(
    candidates: Vectors,
    references: References,
    table: PersonScores,
    candidate: int,
    person: int,
    floor: float,
    exemplars_shown: int = 3,
) -> Match:
    """All there is to say about one pair of ``table``, which must come from the same candidates and references."""
    scores = table.scores[candidate]
    score = float(scores[person])
    runner_up, rival = _find_runner_up(scores, person)
    own = np.flatnonzero((references.owners == person) & references.exemplars)
    cosines = references.vectors[own] @ candidates[candidate]
    shown = np.argsort(-cosines, kind="stable")[:exemplars_shown]
    return Match(
        candidate=candidate,
        person=person,
        score=score,
        margin=score - max(rival, NO_RIVAL_SCORE),
        support=int(table.support[candidate, person]),
        runner_up=runner_up,
        runner_up_score=rival,
        exemplars=tuple(Evidence(int(own[i]), float(cosines[i])) for i in shown if cosines[i] >= floor),
    )


def measure_margins(table: PersonScores) -> npt.NDArray[np.float32]:
    """Margins (N, P) of every candidate for every person over the best other one."""
    scores = table.scores
    if scores.shape[1] < 2:
        return np.subtract(scores, np.float32(NO_RIVAL_SCORE))
    rows = np.arange(len(scores))
    best = np.argmax(scores, axis=1)
    top = scores[rows, best]
    without_best = scores.copy()
    without_best[rows, best] = -1.0
    rivals = np.repeat(top[:, None], scores.shape[1], axis=1)
    rivals[rows, best] = without_best.max(axis=1)
    margins: npt.NDArray[np.float32] = scores - np.maximum(rivals, np.float32(NO_RIVAL_SCORE))
    return margins


def stack_references(groups: Sequence[tuple[Vectors, Vectors]], dimension: int) -> References:
    """References from one (prototype vectors (m, D), centroid vectors (c, D)) pair per person, in the
    persons' order.
    """
    parts: list[Vectors] = [np.empty((0, dimension), dtype=np.float32)]
    owners: list[int] = []
    exemplars: list[bool] = []
    for person, (prototypes, centroids) in enumerate(groups):
        parts += [prototypes, centroids]
        owners += [person] * (len(prototypes) + len(centroids))
        exemplars += [True] * len(prototypes) + [False] * len(centroids)
    return References(
        vectors=np.concatenate(parts),
        owners=np.array(owners, dtype=np.int64),
        exemplars=np.array(exemplars, dtype=np.bool_),
        persons=len(groups),
    )


def _find_runner_up(scores: npt.NDArray[np.float32], person: int) -> tuple[int | None, float]:
    if len(scores) < 2:
        return None, NO_RIVAL_SCORE
    others = scores.copy()
    others[person] = -np.inf
    runner_up = int(np.argmax(others))
    if others[runner_up] <= -1.0:
        return None, NO_RIVAL_SCORE
    return runner_up, float(others[runner_up])
