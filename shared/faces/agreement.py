"""How well a grouping agrees with the truth: pairwise and BCubed precision, recall and F1.

Noise (-1) on either side means "alone": each such face is a group of one. Pairwise figures count pairs of
faces (large groups dominate); BCubed figures average over faces (Bagga and Baldwin 1998; Amigo et al. 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Figures 0..1; a precision or recall over nothing is 1."""

    pairwise_precision: float
    pairwise_recall: float
    bcubed_precision: float
    bcubed_recall: float

    @property
    def pairwise_f1(self) -> float:
        """Harmonic mean of pairwise precision and recall."""
        return _harmonic(self.pairwise_precision, self.pairwise_recall)

    @property
    def bcubed_f1(self) -> float:
        """Harmonic mean of BCubed precision and recall."""
        return _harmonic(self.bcubed_precision, self.bcubed_recall)


def measure_agreement(truth: Labels, labels: Labels) -> Agreement:
    """Compare ``labels`` (N,) with ``truth`` (N,). O(N log N). Raises ``ValueError`` for unequal or no faces."""
    if truth.shape != labels.shape or truth.ndim != 1 or len(truth) == 0:
        raise ValueError("truth and labels must be two equally long rows of at least one face")
    true_groups, found_groups = separate_noise(truth), separate_noise(labels)
    width = int(found_groups.max()) + 1
    cells, shared = np.unique(true_groups * width + found_groups, return_counts=True)
    overlap = shared.astype(np.float64)
    true_sizes = np.bincount(true_groups).astype(np.float64)
    found_sizes = np.bincount(found_groups).astype(np.float64)
    both = float((overlap * (overlap - 1)).sum())
    return Agreement(
        pairwise_precision=_share(both, float((found_sizes * (found_sizes - 1)).sum())),
        pairwise_recall=_share(both, float((true_sizes * (true_sizes - 1)).sum())),
        bcubed_precision=float((overlap**2 / found_sizes[cells % width]).sum() / len(truth)),
        bcubed_recall=float((overlap**2 / true_sizes[cells // width]).sum() / len(truth)),
    )


def separate_noise(labels: Labels) -> npt.NDArray[np.int64]:
    """Renumber to 0..K-1 with every negative label a group of its own."""
    groups = labels.astype(np.int64)
    alone = groups < 0
    groups[alone] = groups.max(initial=0) + 1 + np.arange(int(alone.sum()))
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _harmonic(left: float, right: float) -> float:
    return 2 * left * right / (left + right) if left + right else 0.0
