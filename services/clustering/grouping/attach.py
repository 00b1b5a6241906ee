"""Attaching single faces: noise joins the group whose centroid is clearly the nearest.

Only groups of the face's own neighbours are looked at, which costs O(noise * k * D) and finds the same groups
as looking at all. A face does not join a group that already holds a face of its photo; of two faces of one
photo that want the same group, the nearer one gets it. The other is a question for a human, not a member.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.merge import sum_groups
from shared.faces.embeddings import Vectors

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def attach_faces(
    vectors: Vectors, neighbours: Ints, labels: Ints, assets: Longs, *, threshold: float, margin: float
) -> Ints:
    """New labels (N,): rows labelled -1 join the group of theirs ``neighbours`` (N, k; -1 missing) whose
    centroid has a cosine above ``threshold`` and more than ``margin`` above the second best of those groups.
    Grouped rows stay where they are.
    """
    groups = int(labels.max(initial=-1)) + 1
    alone = np.flatnonzero(labels < 0)
    if groups == 0 or len(alone) == 0:
        return labels
    centroids = sum_groups(vectors, labels)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    chosen, cosines = choose_groups(
        vectors, neighbours, labels, centroids, alone, np.float32(threshold), np.float32(margin)
    )
    joining = np.flatnonzero(chosen >= 0)
    joining = joining[np.argsort(-cosines[joining], kind="stable")]
    width = np.int64(assets.max(initial=0) + 1)
    grouped = labels >= 0
    taken = np.unique(labels[grouped].astype(np.int64) * width + assets[grouped])
    wanted = chosen[joining].astype(np.int64) * width + assets[alone[joining]]
    first = np.zeros(len(joining), dtype=np.bool_)
    first[np.unique(wanted, return_index=True)[1]] = True
    joining = joining[first & ~np.isin(wanted, taken)]
    result = labels.copy()
    result[alone[joining]] = chosen[joining]
    return result


@compiled
def choose_groups(
    vectors: Floats,
    neighbours: Ints,
    labels: Ints,
    centroids: Floats,
    alone: Longs,
    threshold: np.float32,
    margin: np.float32,
) -> tuple[Ints, Floats]:
    """For each row of ``alone`` (Q,) the group it joins or -1, and the cosine to it."""
    chosen = np.full(len(alone), -1, np.int32)
    cosines = np.zeros(len(alone), np.float32)
    for index in range(len(alone)):
        row = alone[index]
        best = np.float32(-2.0)
        second = np.float32(-2.0)
        best_group = -1
        for place in range(neighbours.shape[1]):
            other = neighbours[row, place]
            if other < 0:
                break
            group = labels[other]
            if group < 0:
                continue
            repeated = False
            for earlier in range(place):
                if labels[neighbours[row, earlier]] == group:
                    repeated = True
                    break
            if repeated:
                continue
            cosine = np.dot(vectors[row], centroids[group])
            if cosine > best:
                second = best
                best = cosine
                best_group = group
            elif cosine > second:
                second = cosine
        if best > threshold and best - second > margin:
            chosen[index] = best_group
            cosines[index] = best
    return chosen, cosines
