"""What groups are worth, and how their cost grows; O(N log N) by counting the overlaps of groups.

The blob, faces too blurred to be anybody's, is left out: a group of them is neither right nor wrong. A face of isolated junk
is a person of its own, and a face without a group a group of its own; so junk put into a group costs precision, a person's face
left out costs recall, and junk left out is right.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bench.embeddings import BLOB
from shared.faces.agreement import Agreement, measure_agreement, separate_noise

Labels = npt.NDArray[np.integer]


def score_groups(truth: Labels, labels: Labels) -> Agreement:
    """Pairwise and BCubed figures of the groups ``labels`` (N,) of generated faces whose ``truth`` (N,) is known."""
    judged = truth != BLOB
    return measure_agreement(truth[judged], labels[judged])


def measure_rand(left: Labels, right: Labels) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985) of two groupings of the same faces, the blob's included; noise is alone.

    1 for equal ones, about 0 for unrelated ones.
    """
    left_groups, right_groups = separate_noise(left), separate_noise(right)
    _, shared = np.unique(left_groups * len(right) + right_groups, return_counts=True)
    together = _count_pairs(shared)
    of_left, of_right = _count_pairs(np.bincount(left_groups)), _count_pairs(np.bincount(right_groups))
    expected = of_left * of_right / max(1.0, len(left) * (len(left) - 1) / 2)
    highest = (of_left + of_right) / 2
    return 1.0 if highest == expected else (together - expected) / (highest - expected)


def find_exponent(smaller: tuple[int, float], larger: tuple[int, float]) -> float:
    """b in seconds ~ faces^b through two measurements (faces, seconds)."""
    return math.log(larger[1] / smaller[1]) / math.log(larger[0] / smaller[0])


def _count_pairs(sizes: Labels) -> float:
    counts = sizes.astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())
