"""Attaching single faces: noise joins the group whose centroid is clearly the nearest.

Only groups of the face's own neighbours are looked at, which costs O(noise * k * D) and finds the same groups
as looking at all. A face does not join a group that already holds a face of its photo; of two faces of one
photo that want the same group, the nearer one gets it. The other is a question for a human, not a member.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.compiled import compiled
from services.clustering.grouping.merge import Groups
from services.clustering.grouping.sums import add_rows
from services.clustering.grouping.vectors import AnyVectors, BetweenBlocks, split_rows, take_rows

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def attach_faces(
    vectors: AnyVectors,
    neighbours: Ints,
    groups: Groups,
    assets: Longs,
    *,
    threshold: float,
    margin: float,
    between_blocks: BetweenBlocks,
) -> Groups:
    """Rows labelled -1 join the group of theirs ``neighbours`` (N, k; -1 missing) whose centroid has a cosine above
    ``threshold`` and more than ``margin`` above the second best of those groups. Grouped rows stay where they are.
    ``groups.sums`` is overwritten.
    """
    labels = groups.labels
    alone = np.flatnonzero(labels < 0)
    if len(groups.sums) == 0 or len(alone) == 0:
        return groups
    centroids = groups.sums / np.linalg.norm(groups.sums, axis=1, keepdims=True)
    chosen = np.empty(len(alone), dtype=np.int32)
    cosines = np.empty(len(alone), dtype=np.float32)
    for part in split_rows(len(alone)):
        between_blocks(part.start, len(alone))
        rows = alone[part]
        chosen[part], cosines[part] = choose_groups(
            take_rows(vectors, rows), neighbours[rows], labels, centroids, np.float32(threshold), np.float32(margin)
        )
    joining = np.flatnonzero(chosen >= 0)
    joining = joining[np.argsort(-cosines[joining], kind="stable")]
    width = np.int64(assets.max(initial=0) + 1)
    grouped = labels >= 0
    taken = np.sort(labels[grouped].astype(np.int64) * width + assets[grouped])
    wanted = chosen[joining].astype(np.int64) * width + assets[alone[joining]]
    first = np.zeros(len(joining), dtype=np.bool_)
    first[np.unique(wanted, return_index=True)[1]] = True
    held = taken[np.minimum(np.searchsorted(taken, wanted), len(taken) - 1)] == wanted
    joining = np.sort(joining[first & ~held])
    result, changed = labels.copy(), groups.changed.copy()
    result[alone[joining]] = chosen[joining]
    changed[chosen[joining]] = True
    for part in split_rows(len(joining)):
        add_rows(groups.sums, take_rows(vectors, alone[joining[part]]), chosen[joining[part]])
    return replace(groups, labels=result, changed=changed)


@compiled
def choose_groups(
    vectors: Floats,
    neighbours: Ints,
    labels: Ints,
    centroids: Floats,
    threshold: np.float32,
    margin: np.float32,
) -> tuple[Ints, Floats]:
    """For each of some faces, their ``vectors`` (Q, D) and ``neighbours`` (Q, k), the group it joins or -1, and the cosine."""
    chosen = np.full(len(vectors), -1, np.int32)
    cosines = np.zeros(len(vectors), np.float32)
    for row in range(len(vectors)):
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
            chosen[row] = best_group
            cosines[row] = best
    return chosen, cosines
