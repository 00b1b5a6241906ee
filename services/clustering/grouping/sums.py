"""Sums of the vectors of groups: what a centroid of merged groups can be had from at once, unlike a trimmed mean."""

from __future__ import annotations

import numpy as np

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.vectors import AnyVectors, BetweenBlocks, Ints, Rows, split_rows, take_rows
from shared.faces.embeddings import Vectors


def sum_groups(vectors: AnyVectors, labels: Ints, between_blocks: BetweenBlocks) -> Vectors:
    """Plain sums (K, D) of the vectors of each group of ``labels`` (N,; 0..K-1, -1 none)."""
    sums = np.zeros((int(labels.max(initial=-1)) + 1, vectors.shape[1]), dtype=np.float32)
    for part in split_rows(len(labels)):
        between_blocks(part.start, len(labels))
        add_rows(sums, take_rows(vectors, part), labels[part])
    return sums


@compiled
def add_rows(sums: Vectors, rows: Vectors, labels: Ints) -> None:
    """Add each of ``rows`` (n, D) to the sum (K, D) of its label (n,), unless that is -1."""
    for row in range(len(rows)):
        group = labels[row]
        if group >= 0:
            for d in range(rows.shape[1]):
                sums[group, d] += rows[row, d]


def measure_cosines(vectors: AnyVectors, rows: Rows, sums: Vectors) -> Vectors:
    """Cosines (n, K) of a few rows to the directions of ``sums`` (K, D)."""
    units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    cosines: Vectors = take_rows(vectors, rows) @ units.T
    return cosines
