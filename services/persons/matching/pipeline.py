"""One training from start to end: split the persons, choose a start, descend, measure on persons never seen.

Memory, for N faces of D dimensions and H held-out faces: 10 N D bytes (float16 as sent, float32, and one projection of it),
40 D^2 (scatter, matrices, Adam), and 20 H^2 (cosines of all pairs of two spaces with the copy that sorts them). With the
limits of 40,000 faces and 4,000 held out, at 512 dimensions: 205 + 10 + 320 MB.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from services.persons.matching.descent import descend
from services.persons.matching.judging import compare_spaces, measure_separability
from services.persons.matching.request import (
    Cancelled,
    People,
    Phase,
    Progress,
    Report,
    Separability,
    TrainedMatcher,
    TrainingCancelled,
    TrainingOptions,
    TrainingRequest,
)
from services.persons.matching.split import split_people
from services.persons.matching.whitening import SHRINKAGES, make_start, measure_scatter
from shared.faces.embeddings import Vectors, normalise
from shared.faces.projection import Projection

_SAME = 1e-3
"""Of two dimensions this near each other the smaller is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """A matrix (D, d) and how well it tells the tuning persons apart."""

    matrix: Vectors
    score: float
    shrinkage: float | None
    epoch: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Faces:
    vectors: Vectors
    people: People


def learn_matcher(request: TrainingRequest, report: Report, cancelled: Cancelled) -> TrainedMatcher:
    """Learn a projection. CPU-bound: call it in its own process (:mod:`process`).

    ``report`` is told of epochs; ``cancelled`` is asked between batches. Raises ``ValueError`` for fewer than three
    persons, :class:`InvalidEmbedding` for a row without a direction, :class:`TrainingCancelled`.
    """

    def look_up() -> None:
        if cancelled():
            raise TrainingCancelled

    started = time.perf_counter()
    options = request.options
    with threadpool_limits(options.threads):
        split = split_people(request.people, options)
        training, tuning, held_out = (
            _Faces(normalise(request.vectors[rows]), request.people[rows])
            for rows in (split.training, split.tuning, split.held_out)
        )
        report(Progress(Phase.TRAIN, 0, options.epochs))
        start = _choose_start(training, tuning, look_up)
        best = _improve(start, training, tuning, options, report, look_up)
        report(Progress(Phase.MEASURE, options.epochs, options.epochs))
        after = Projection(best.matrix).apply(held_out.vectors)
        verdict = compare_spaces(held_out.vectors, after, held_out.people, options.seed)
    return TrainedMatcher(
        matrix=best.matrix,
        verdict=verdict,
        persons=len(np.unique(training.people)),
        faces=len(training.people),
        tuning_persons=len(np.unique(tuning.people)),
        held_out_persons=len(np.unique(held_out.people)),
        held_out_faces=len(held_out.people),
        shrinkage=best.shrinkage,
        epoch=best.epoch,
        seconds=time.perf_counter() - started,
    )


def _choose_start(training: _Faces, tuning: _Faces, look_up: Callable[[], None]) -> _Choice:
    """The best shrinkage in all dimensions, then the fewest dimensions (D, D/2, D/4) that do as well."""
    scatter = measure_scatter(training.vectors, training.people)
    best: _Choice | None = None
    for shrinkage in SHRINKAGES:
        look_up()
        matrix = make_start(scatter, shrinkage)
        score = _score(tuning, matrix)
        if best is None or score > best.score:
            best = _Choice(matrix, score, shrinkage)
    assert best is not None
    whole = best
    for share in (2, 4):
        look_up()
        matrix = np.ascontiguousarray(whole.matrix[:, : whole.matrix.shape[0] // share])
        if not matrix.shape[1]:
            break
        score = _score(tuning, matrix)
        if score >= whole.score - _SAME:
            best = _Choice(matrix, score, whole.shrinkage)
    return best


def _improve(
    start: _Choice,
    training: _Faces,
    tuning: _Faces,
    options: TrainingOptions,
    report: Report,
    look_up: Callable[[], None],
) -> _Choice:
    best = start
    projected = Projection(start.matrix).apply(training.vectors)
    for epoch in descend(projected, training.people, options, look_up):
        report(Progress(Phase.TRAIN, epoch.number, options.epochs))
        matrix = start.matrix @ epoch.matrix
        score = _score(tuning, matrix)
        if score > best.score:
            best = _Choice(matrix, score, start.shrinkage, epoch.number)
        elif epoch.number - best.epoch >= options.patience:
            break
    return best


def _score(tuning: _Faces, matrix: Vectors) -> float:
    """TAR at FAR 1e-3 is what is wanted; the EER tells apart what few tuning persons show as equal."""
    found: Separability = measure_separability(Projection(matrix).apply(tuning.vectors), tuning.people)
    return found.tar_at_far_1e3 - found.eer
