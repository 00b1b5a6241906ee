"""A drawn album as Kith holds it: grouped by the house's own code, named by somebody who knows, the rest in question.

What the grouping leaves over is what suggestions are asked about: the hardest faces of the people, and all
strangers. A calibration fitted on easier probes would be sure where it must not be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from demo.pack.held_out import FoundFaces
from services.clustering.grouping.constraints import FREE
from services.clustering.grouping.graph import NeighbourGraph
from services.clustering.grouping.merge import gather_groups
from services.clustering.grouping.neighbours import build_neighbour_graph
from services.clustering.grouping.pipeline import Run, group_faces, merge_and_attach
from services.clustering.grouping.request import GroupingRequest, GroupingSizes, Labels
from services.clustering.grouping.small import form_small_hdbscan
from services.clustering.grouping.thresholds import Thresholds
from shared.config import PersonSettings, QualitySettings
from shared.faces.calibration import Calibration
from shared.faces.matching import PersonScores, measure_margins, score_persons, stack_references
from shared.faces.modes import find_modes
from shared.faces.prototypes import PrototypeCandidate, PrototypeRules, choose_prototypes

_ROUNDS = 4
"""As the demo asks: three rounds by prototypes, one with modes."""
_SIZES = GroupingSizes()
_SEED_FLOOR = QualitySettings().seed_floor
_PERSONS = PersonSettings()
_PROTOTYPES = PrototypeRules(_PERSONS.max_prototypes, _PERSONS.max_prototypes_per_era, _PERSONS.prototype_min_quality)


@dataclass(frozen=True, slots=True)
class Questions:
    """The best person of each face that is in question: cosine, margin over the next, support, and whether right."""

    faces: NDArray[np.int64]
    persons: NDArray[np.int64]
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
    thresholds: Thresholds
    graph: NeighbourGraph
    labels: Labels

    def refine(self, merge: float, attach: float, attach_margin: float) -> Labels:
        """The grouping's other steps: merge, attach, merge."""
        faces = self.faces
        thresholds = replace(self.thresholds, merge=merge, attach=attach, attach_margin=attach_margin)
        request = GroupingRequest(faces.embeddings, faces.photos, faces.quality, sizes=_SIZES)
        photos = np.unique(faces.photos, return_inverse=True)[1].astype(np.int64)
        free = np.full(len(photos), FREE, dtype=np.int32)
        groups = gather_groups(faces.embeddings, self.labels, lambda done, total: None)
        run = Run(lambda progress: None, lambda: False)
        return merge_and_attach(run, request, self.graph, groups, photos, free, thresholds)[0].labels


def form_first_groups(faces: FoundFaces, thresholds: Thresholds) -> FirstGroups:
    """The first groups at a `link_floor` and a `knn_floor`."""
    graph, _ = build_neighbour_graph(
        faces.embeddings,
        k=_SIZES.neighbours,
        floor=thresholds.knn_floor,
        sizes=_SIZES,
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
    return FirstGroups(faces, thresholds, graph, labels)


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


def find_questions(
    faces: FoundFaces,
    assigned: NDArray[np.int64],
    floor: float,
    *,
    modes: bool,
    refused: NDArray[np.bool_] | None = None,
) -> Questions:
    """What would be asked about the faces assigned to nobody, by prototypes and, if wanted, by modes as well.

    `floor` is the cosine from which a prototype supports a match; `refused` (n, known) are pairs already answered no.
    """
    named = np.unique(assigned[assigned >= 0])
    groups = []
    for person in named:
        own = np.flatnonzero(assigned == person)
        vectors = faces.embeddings[own]
        candidates = [
            # Drawn faces look into the camera: their merit is their quality.
            PrototypeCandidate(
                f"{row:06d}", str(faces.photos[row]), float(faces.quality[row]), merit=float(faces.quality[row])
            )
            for row in own
        ]
        chosen = [each.index for each in choose_prototypes(candidates, vectors, _PROTOTYPES)]
        found = find_modes(vectors) if modes else None
        groups.append((vectors[chosen], vectors[:0] if found is None else found.vectors))
    in_question = np.flatnonzero(assigned < 0)
    references = stack_references(groups, faces.embeddings.shape[1])
    table = score_persons(faces.embeddings[in_question], references, floor)
    if refused is not None:
        table.scores[refused[in_question][:, named]] = -1.0
    return _ask_best(table, named, in_question, faces.people[in_question])


def answer_rounds(
    faces: FoundFaces, assigned: NDArray[np.int64], floor: float, curve: Calibration, least: float
) -> NDArray[np.bool_]:
    """Whether each question was right, over all rounds: what is answered yes is known in the next, what is answered no
    is not asked again, but the next best person may be."""
    assigned = assigned.copy()
    refused = np.zeros((len(assigned), faces.known), np.bool_)
    answers = []
    for number in range(_ROUNDS):
        questions = find_questions(faces, assigned, floor, modes=number == _ROUNDS - 1, refused=refused)
        sure = curve.confidences(questions.scores, questions.margins, questions.supports)
        asked = (sure >= least) & (questions.scores >= floor)
        right = questions.right[asked]
        face, person = questions.faces[asked], questions.persons[asked]
        assigned[face[right]] = person[right]
        refused[face[~right], person[~right]] = True
        answers.append(right)
    return np.concatenate(answers)


def _ask_best(
    table: PersonScores, named: NDArray[np.int64], in_question: NDArray[np.int64], people: NDArray[np.int64]
) -> Questions:
    best = table.scores.argmax(axis=1)
    rows = np.arange(len(best))
    return Questions(
        in_question,
        named[best],
        table.scores[rows, best].astype(np.float64),
        measure_margins(table)[rows, best].astype(np.float64),
        table.support[rows, best].astype(np.int64),
        named[best] == people,
    )
