"""Questions about generated faces, answered by the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.embeddings import generate_faces
from shared.faces.calibration import Calibration, Floats
from shared.faces.calibration_fit import Answers, predict
from shared.faces.matching import ARCFACE_FLOOR, References, measure_margins, score_persons

LABELLED = 5


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredQuestions:
    """Everything worth asking of a library, in random order, and the answers."""

    answers: Answers

    def first(self, count: int) -> Answers:
        """Those that were answered."""
        return self.answers.take(np.arange(len(self.answers)) < count)

    def after(self, count: int) -> Answers:
        """Those still to be answered."""
        return self.answers.take(np.arange(len(self.answers)) >= count)


def answer_questions(
    asked_by: Calibration,
    *,
    least: float = 0.5,
    most: float = 1.0,
    faces: int = 12_000,
    persons: int = 120,
    seed: int = 0,
    profile: str = "r100",
) -> AnsweredQuestions:
    """Five faces of each of some persons are known, and every other face is asked about if its best person is likely
    enough by a pack's curve, ``least`` to ``most``.
    """
    generated = generate_faces(faces, seed=seed, profile=profile)
    random = np.random.default_rng(seed)
    sizes = np.bincount(generated.truth[generated.truth >= 0])
    known = random.permutation(np.flatnonzero(sizes > 2 * LABELLED))[:persons]
    prototypes = [
        random.choice(np.flatnonzero((generated.truth == person) & (generated.quality >= 0.4)), LABELLED, replace=False)
        for person in known
        if np.count_nonzero((generated.truth == person) & (generated.quality >= 0.4)) >= LABELLED
    ]
    labelled = np.concatenate(prototypes)
    owners = np.repeat(np.arange(len(prototypes)), LABELLED)
    references = References(
        generated.vectors[labelled], owners, np.ones(len(labelled), dtype=np.bool_), len(prototypes)
    )
    rest = np.setdiff1d(np.arange(faces), labelled)
    table = score_persons(generated.vectors[rest], references, ARCFACE_FLOOR)
    best = np.argmax(table.scores, axis=1)
    at = np.arange(len(rest)), best
    truth: npt.NDArray[np.int64] = generated.truth[labelled[LABELLED * best]]
    every = Answers(
        scores=table.scores[at].astype(np.float64),
        margins=measure_margins(table)[at].astype(np.float64),
        supports=table.support[at].astype(np.int64),
        accepted=generated.truth[rest] == truth,
    )
    likely: Floats = predict(asked_by, every)
    asked = every.take((every.scores >= ARCFACE_FLOOR) & (likely >= least) & (likely <= most))
    order = random.permutation(len(asked))
    return AnsweredQuestions(
        Answers(asked.scores[order], asked.margins[order], asked.supports[order], asked.accepted[order])
    )
