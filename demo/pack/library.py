"""A drawn album as Kith holds it: grouped by the house's own code, named by somebody who knows, the rest in question.

What the grouping leaves over is what suggestions are asked about: the hardest faces of the people, and all
strangers. A calibration fitted on easier probes would be sure where it must not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.pack.held_out import FoundFaces
from services.clustering.grouping.attach import attach_faces
from services.clustering.grouping.merge import merge_groups
from services.clustering.grouping.neighbours import NeighbourGraph, build_neighbour_graph
from services.clustering.grouping.pipeline import group_faces
from services.clustering.grouping.request import GroupingRequest, GroupingSizes, Labels
from services.clustering.grouping.small import form_small_hdbscan
from services.clustering.grouping.thresholds import Thresholds
from shared.config import PersonSettings, QualitySettings
from shared.faces.matching import PersonScores, measure_margins, score_persons, stack_references
from shared.faces.modes import find_modes
from shared.faces.prototypes import PrototypeCandidate, PrototypeRules, choose_prototypes

_SIZES = GroupingSizes()
_SEED_FLOOR = QualitySettings().seed_floor
_PERSONS = PersonSettings()
_PROTOTYPES = PrototypeRules(_PERSONS.max_prototypes, _PERSONS.max_prototypes_per_era, _PERSONS.prototype_min_quality)


@dataclass(frozen=True, slots=True)
class Questions:
    """The best person of each face that is in question: cosine, margin over the next, support, and whether right."""

    scores: NDArray[np.float64]
    margins: NDArray[np.float64]
    supports: NDArray[np.int64]
    right: NDArray[np.bool_]


def group_album(faces: FoundFaces, thresholds: Thresholds) -> Labels:
    """Group numbers (n,), -1 for none, as the clustering service would answer."""
    request = GroupingRequest(faces.embeddings, faces.photos, faces.quality, pack_thresholds=thresholds)
    return group_faces(request, lambda progress: None, lambda: False).labels


@dataclass(frozen=True, slots=True)
class FirstGroups:
    """An album after the first step of a grouping, from which merging and attaching are tried many times."""

    faces: FoundFaces
    graph: NeighbourGraph
    labels: Labels

    def refine(self, merge: float, attach: float, attach_margin: float) -> Labels:
        """The grouping's other steps: merge, attach, merge."""
        vectors, photos, veto = self.faces.embeddings, self.faces.photos, _SIZES.veto_share
        merged = merge_groups(vectors, self.labels, photos, threshold=merge, veto_share=veto).labels
        attached = attach_faces(vectors, self.graph.neighbours, merged, photos, threshold=attach, margin=attach_margin)
        return merge_groups(vectors, attached, photos, threshold=merge, veto_share=veto).labels


def form_first_groups(faces: FoundFaces, thresholds: Thresholds) -> FirstGroups:
    """The first groups at a `link_floor` and a `knn_floor`."""
    graph = build_neighbour_graph(
        faces.embeddings,
        k=_SIZES.neighbours,
        floor=thresholds.knn_floor,
        block_rows=_SIZES.block_rows,
        threads=_SIZES.threads,
        between_blocks=lambda done, total: None,
    )
    labels = form_small_hdbscan(
        faces.embeddings,
        graph,
        faces.quality >= _SEED_FLOOR,
        thresholds,
        min_cluster_size=_SIZES.min_cluster_size,
        min_samples=_SIZES.min_samples,
    )
    return FirstGroups(faces, graph, labels)


def name_faces(faces: FoundFaces, labels: Labels) -> NDArray[np.int64]:
    """Who each face is assigned to (n,), -1 for nobody: a group gets the name of its majority, if there is one among
    the album's people, and whoever names it sees which faces do not belong to it."""
    assigned = np.full(len(labels), -1, np.int64)
    for group in range(int(labels.max(initial=-1)) + 1):
        members = np.flatnonzero(labels == group)
        counts = np.bincount(faces.people[members][faces.people[members] >= 0], minlength=faces.known)[: faces.known]
        person = int(counts.argmax())
        if counts[person] > len(members) / 2:
            assigned[members[faces.people[members] == person]] = person
    return assigned


def find_questions(faces: FoundFaces, assigned: NDArray[np.int64], floor: float) -> Iterator[Questions]:
    """What would be asked about the faces assigned to nobody: by prototypes, then by prototypes and modes.

    `floor` is the cosine from which a prototype supports a match.
    """
    named = np.unique(assigned[assigned >= 0])
    groups = []
    for person in named:
        own = np.flatnonzero(assigned == person)
        vectors = faces.embeddings[own]
        candidates = [
            PrototypeCandidate(f"{row:06d}", str(faces.photos[row]), float(faces.quality[row]), era=faces.eras[row])
            for row in own
        ]
        chosen = [each.index for each in choose_prototypes(candidates, vectors, _PROTOTYPES)]
        modes = find_modes(vectors)
        groups.append((vectors[chosen], vectors[:0] if modes is None else modes.vectors))
    open_faces = np.flatnonzero(assigned < 0)
    without = [(prototypes, modes[:0]) for prototypes, modes in groups]
    for references in (without, groups):
        stacked = stack_references(references, faces.embeddings.shape[1])
        table = score_persons(faces.embeddings[open_faces], stacked, floor)
        yield _ask_best(table, named, faces.people[open_faces])


def _ask_best(table: PersonScores, named: NDArray[np.int64], people: NDArray[np.int64]) -> Questions:
    best = table.scores.argmax(axis=1)
    rows = np.arange(len(best))
    return Questions(
        table.scores[rows, best].astype(np.float64),
        measure_margins(table)[rows, best].astype(np.float64),
        table.support[rows, best].astype(np.int64),
        named[best] == people,
    )
