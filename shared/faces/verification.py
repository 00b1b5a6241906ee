"""How well cosines tell one person from another: verification figures over all pairs of labelled faces.

A pair is genuine if both faces are of one person, else impostor; it is accepted at a threshold if its cosine is at least
that. FAR is the share of impostor pairs accepted, TAR the share of genuine ones, EER where FAR and 1 - TAR are the same
(ISO/IEC 19795-1, there as FMR and FNMR). All faces pairwise: memory and time grow with the square of their number (4,000
faces: 8 million pairs, 32 MB per model), so callers sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.faces.embeddings import Vectors

Scores = npt.NDArray[np.float32]

_ROWS = 512
# Beyond what float32 tells apart.
_HALVINGS = 40


@dataclass(frozen=True, slots=True, eq=False)
class PairScores:
    """Cosines of the pairs of one set of faces, each kind in rising order: ``genuine`` (G,), ``impostor`` (I,)."""

    genuine: Scores
    impostor: Scores


def score_pairs(vectors: Vectors, people: npt.NDArray[np.integer]) -> PairScores:
    """Cosine of every pair of different rows of ``vectors`` (N, D), unit length; ``people`` (N,) says whose each is."""
    if len(vectors) != len(people):
        raise ValueError(f"{len(vectors)} vectors, but {len(people)} people")
    genuine: list[Scores] = [np.empty(0, dtype=np.float32)]
    impostor: list[Scores] = [np.empty(0, dtype=np.float32)]
    for first in range(0, len(vectors), _ROWS):
        rows = slice(first, first + _ROWS)
        cosines = vectors[rows] @ vectors[first:].T
        later = np.arange(cosines.shape[1])[None, :] > np.arange(cosines.shape[0])[:, None]
        same = people[rows][:, None] == people[first:][None, :]
        genuine.append(cosines[later & same])
        impostor.append(cosines[later & ~same])
    return PairScores(_sorted(genuine), _sorted(impostor))


def find_threshold(impostor: Scores, far: float) -> float:
    """The lowest cosine that accepts at most the share ``far`` (0..1) of impostor pairs (I,), in rising order, I > 0."""
    refused = len(impostor) - int(far * len(impostor))
    if refused == 0:
        return float(impostor[0])
    return float(np.nextafter(impostor[refused - 1], np.float32(np.inf)))


def share_accepted(scores: Scores, threshold: float) -> float:
    """Share 0..1 of pairs, in rising order and at least one, whose cosine is ``threshold`` or more."""
    return 1.0 - float(np.searchsorted(scores, np.float32(threshold), side="left")) / len(scores)


def equal_error_rate(pairs: PairScores) -> float:
    """Where FAR meets 1 - TAR, 0..1. Both kinds must have a pair.

    The one falls and the other rises with the threshold, each in steps: so the place where they pass each other is bracketed,
    and the mean of the two is taken on the side where they are nearer.
    """
    bracket = [-1.1, 1.1]
    for _ in range(_HALVINGS):
        middle = sum(bracket) / 2
        accepted, refused = _error_rates(pairs, middle)
        bracket[accepted <= refused] = middle
    return min((abs(far - frr), (far + frr) / 2) for far, frr in (_error_rates(pairs, side) for side in bracket))[1]


def carry_threshold(threshold: float, of: Scores, to: Scores) -> float | None:
    """The cosine that lets the same share of impostor pairs ``to`` (J,) pass as ``threshold`` lets of ``of`` (I,).

    Both in rising order. Half way between the last pair that passes and the first that does not. None where no pair passes, or
    every one: the sample says nothing about such a threshold.
    """
    if not len(of) or not len(to):
        return None
    passing = round(share_accepted(of, threshold) * len(to))
    if not 0 < passing < len(to):
        return None
    return float(to[-passing - 1] + to[-passing]) / 2


def agree_on_neighbours(left: Vectors, right: Vectors, neighbours: int) -> float:
    """Mean share 0..1 of each face's nearest others that two models have in common.

    ``left`` (N, D) and ``right`` (N, E) are unit rows of the same faces; where there are fewer than ``neighbours`` others, all
    are compared. Raises ``ValueError`` for fewer than two faces.
    """
    count = len(left)
    if count < 2 or len(right) != count:
        raise ValueError("neighbours need at least two faces, each with a vector of both models")
    wanted = min(neighbours, count - 1)
    common = 0
    for first in range(0, count, _ROWS):
        ours, theirs = (_nearest(vectors, first, wanted) for vectors in (left, right))
        common += int((ours[:, :, None] == theirs[:, None, :]).sum())
    return common / (count * wanted)


def _error_rates(pairs: PairScores, threshold: float) -> tuple[float, float]:
    """FAR and 1 - TAR."""
    return share_accepted(pairs.impostor, threshold), 1.0 - share_accepted(pairs.genuine, threshold)


def _sorted(parts: list[Scores]) -> Scores:
    scores = np.concatenate(parts)
    # In place: there may be many.
    scores.sort()
    return scores


def _nearest(vectors: Vectors, first: int, wanted: int) -> npt.NDArray[np.intp]:
    cosines = vectors[first : first + _ROWS] @ vectors.T
    own = np.arange(len(cosines))
    cosines[own, first + own] = -np.inf
    return np.argpartition(-cosines, wanted - 1, axis=1)[:, :wanted]
