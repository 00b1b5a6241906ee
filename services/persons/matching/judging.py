"""Separability, and whether one of two spaces is better or only luckier.

Better means, on the held-out persons: TAR at FAR 1e-3 rises by at least 0.002 and by more than nothing in 95 of 100 samples
of persons, and the EER does not rise by more than one standard error. Both are estimated by drawing the held-out persons
1,000 times with replacement (Efron 1979); the thresholds stay those of all held-out persons, so what the choice of the
threshold adds to the noise is not in it. The minimum gain is there for large libraries, where a gain can be certain and
still not be worth another set of cosines.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.persons.matching.request import People, Separability, Verdict
from shared.faces.embeddings import Vectors
from shared.faces.projection import Strangers, measure_strangers
from shared.faces.verification import PairScores, equal_error_rate, find_threshold, score_pairs, share_accepted

FAR: Final = 1e-3
MINIMUM_GAIN: Final = 0.002
_DRAWS: Final = 1000
_LOW: Final = 0.05

_Counts = npt.NDArray[np.float64]


def measure_separability(vectors: Vectors, people: People) -> Separability:
    """Of unit vectors (N, D) of ``people`` (N,), with pairs of both kinds."""
    return _summarise(score_pairs(vectors, people))


def compare_spaces(before: Vectors, after: Vectors, people: People, seed: int) -> Verdict:
    """Whether ``after`` (N, d) tells ``people`` (N,) apart better than ``before`` (N, D), the same faces' unit vectors."""
    figures: list[Separability] = []
    strangers: list[Strangers] = []
    accepted: list[_Counts] = []
    passed: list[_Counts] = []
    pairs: _Counts = np.empty(0)
    for vectors in (before, after):
        scores = score_pairs(vectors, people)
        found = _summarise(scores)
        figures.append(found)
        strangers.append(measure_strangers(scores.impostor))
        thresholds = (find_threshold(scores.impostor, FAR), find_threshold(scores.impostor, found.eer))
        pairs, counts = _count_genuine(vectors, people, thresholds)
        accepted.append(counts[0])
        passed.append(counts[1])
    draws = np.random.default_rng(seed).integers(0, len(pairs), (_DRAWS, len(pairs)))
    drawn = pairs[draws].sum(axis=1)
    gains = (accepted[1] - accepted[0])[draws].sum(axis=1) / drawn
    noise = float(((passed[1] - passed[0])[draws].sum(axis=1) / drawn).std())
    low = float(np.quantile(gains, _LOW))
    old, new = figures
    enough = new.tar_at_far_1e3 - old.tar_at_far_1e3 >= MINIMUM_GAIN and low > 0
    return Verdict(
        before=old,
        after=new,
        gain_low=low,
        eer_noise=noise,
        better=enough and new.eer <= old.eer + noise,
        strangers_before=strangers[0],
        strangers_after=strangers[1],
    )


def _summarise(scores: PairScores) -> Separability:
    threshold = find_threshold(scores.impostor, FAR)
    return Separability(equal_error_rate(scores), share_accepted(scores.genuine, threshold))


def _count_genuine(vectors: Vectors, people: People, thresholds: tuple[float, ...]) -> tuple[_Counts, list[_Counts]]:
    """Pairs of each person (P,), and how many of them each threshold accepts (P,)."""
    names, first, sizes = np.unique(people, return_index=True, return_counts=True)
    accepted = [np.zeros(len(names)) for _ in thresholds]
    for person, (start, size) in enumerate(zip(first.tolist(), sizes.tolist(), strict=True)):
        own = vectors[start : start + size]
        cosines = (own @ own.T)[np.triu_indices(size, 1)]
        for at, threshold in enumerate(thresholds):
            accepted[at][person] = np.count_nonzero(cosines >= np.float32(threshold))
    return (sizes * (sizes - 1) / 2).astype(np.float64), accepted
