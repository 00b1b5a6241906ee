"""The cosines a pack carries: fitted on albums of validation people, whom neither the networks nor the demo ever see.

Groups and questions are the house's own, by `demo/pack/library.py`. The calibration is one of open-set
identification: what is asked about is what the grouping left over, strangers among it, and a question is right if its
best person is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from demo.pack.held_out import FoundFaces, pair_scores, pairwise_f1
from demo.pack.library import Questions, answer_rounds, find_questions, form_first_groups, group_album, name_faces
from services.clustering.grouping import thresholds as grouping
from shared.config import SuggestionSettings
from shared.faces.calibration import Calibration

ATTACH_MARGIN = 0.05
ASK_PRECISION = 0.98
ASSIGN_PRECISION = 0.995
_KNN_BELOW_LINK = 0.15
_F1_GIVEN_UP = 0.005
_F1_PLATEAU = 0.003
_SUGGEST_PRECISION = 0.5
_LEAST_ASKED = 10
_BOTH = (False, True)
_CAUTION_STEP = 0.1


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Cosines; how each was fitted is in the pack's README."""

    knn_floor: float
    link_floor: float
    merge: float
    attach: float
    attach_margin: float
    suggest_floor: float
    assign_floor: float

    @property
    def grouping(self) -> grouping.Thresholds:
        """Those a grouping takes."""
        return _grouping_thresholds(self.link_floor, self.merge, self.attach)


def _grouping_thresholds(link: float, merge: float, attach: float) -> grouping.Thresholds:
    return grouping.Thresholds(
        knn_floor=round(min(link - _KNN_BELOW_LINK, attach), 3),
        link_floor=round(link, 3),
        merge=round(merge, 3),
        attach=round(attach, 3),
        attach_margin=ATTACH_MARGIN,
    )


def fit_grouping(albums: Sequence[FoundFaces]) -> grouping.Thresholds:
    """Searches the grouping's cosines for the best mean pairwise F1.

    Of those within `_F1_GIVEN_UP` of it the strictest `attach` is taken, and with it the middle of the best others:
    what is not attached is asked about, and a wrong question costs less than a wrong face in a group.
    """
    impostor = np.concatenate([pair_scores(faces)[1] for faces in albums])
    trials: list[tuple[float, tuple[float, float, float]]] = []
    for rate in (1e-2, 4e-3, 2e-3, 1e-3, 4e-4, 1e-4):
        link = float(np.quantile(impostor, 1 - rate))
        firsts = [form_first_groups(faces, _grouping_thresholds(link, link, link)) for faces in albums]
        for merge, attach in product(np.arange(0.5, 0.86, 0.05), np.arange(0.45, 0.81, 0.05)):
            f1 = []
            for faces, first in zip(albums, firsts, strict=True):
                real = faces.people >= 0
                labels = first.refine(float(merge), float(attach), ATTACH_MARGIN).astype(np.int64)
                f1.append(pairwise_f1(faces.people[real], labels[real])[2])
            trials.append((float(np.mean(f1)), (link, float(merge), float(attach))))
    best = max(score for score, _ in trials)
    attach = max(values[2] for score, values in trials if score >= best - _F1_GIVEN_UP)
    strict = [(score, values) for score, values in trials if values[2] == attach]
    best = max(score for score, _ in strict)
    good = np.array([values for score, values in strict if score >= best - _F1_PLATEAU])
    link, merge, attach = good[np.abs(good - np.median(good, axis=0)).sum(axis=1).argmin()]
    return _grouping_thresholds(float(link), float(merge), float(attach))


def ask_albums(
    albums: Sequence[FoundFaces], thresholds: grouping.Thresholds, floor: float, *, modes: tuple[bool, ...]
) -> Questions:
    """The questions of all albums, after each was grouped and named, by prototypes alone (False), with modes (True)."""
    asked: list[Questions] = []
    for faces in albums:
        assigned = name_faces(faces, group_album(faces, thresholds))
        asked += [find_questions(faces, assigned, floor, modes=each) for each in modes]
    return Questions(
        np.concatenate([each.faces for each in asked]),
        np.concatenate([each.persons for each in asked]),
        np.concatenate([each.scores for each in asked]),
        np.concatenate([each.margins for each in asked]),
        np.concatenate([each.supports for each in asked]),
        np.concatenate([each.right for each in asked]),
    )


def find_floor(values: NDArray[np.float64], right: NDArray[np.bool_], precision: float) -> float:
    """The lowest value from which on questions are right that often; just above all if that is never so.

    Fewer than ten questions prove nothing.
    """
    order = np.argsort(-values, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= precision)
    enough = enough[enough >= _LEAST_ASKED - 1]
    return float(values[order][enough[-1]]) if len(enough) else float(np.nextafter(values.max(), np.inf))


def fit_thresholds(albums: Sequence[FoundFaces]) -> Thresholds:
    """All cosines of a pack."""
    groups = fit_grouping(albums)
    questions = ask_albums(albums, groups, -1.0, modes=_BOTH)
    suggest = find_floor(questions.scores, questions.right, _SUGGEST_PRECISION)
    assign = find_floor(questions.scores, questions.right, ASSIGN_PRECISION)
    return Thresholds(
        knn_floor=groups.knn_floor,
        link_floor=groups.link_floor,
        merge=groups.merge,
        attach=groups.attach,
        attach_margin=groups.attach_margin,
        suggest_floor=round(suggest, 3),
        assign_floor=round(max(suggest, assign), 3),
    )


def fit_calibration(albums: Sequence[FoundFaces], thresholds: Thresholds) -> dict[str, float]:
    """Slope and intercept of `shared/faces/calibration.py`, whose terms of margin and support are as they are there.

    First the likeliest curve (logistic regression with those terms as offset), then lowered until in every album the questions
    asked over all rounds are right in `ASK_PRECISION` of cases: albums differ, and the next
    may be the hardest. Raises `RuntimeError` if none would be asked.
    """
    questions = ask_albums(albums, thresholds.grouping, thresholds.suggest_floor, modes=_BOTH)
    flat = Calibration(slope=1.0, intercept=0.0)
    offset = _log_odds(flat, questions) - questions.scores

    def unlikelihood(values: NDArray[np.float64]) -> float:
        log_odds = np.exp(values[0]) * questions.scores + values[1] + offset
        return float(np.logaddexp(0, np.where(questions.right, -log_odds, log_odds)).sum())

    found = minimize(unlikelihood, np.array([np.log(10.0), -5.0]), method="Nelder-Mead")
    if not found.success:
        raise RuntimeError(f"the calibration does not converge: {found.message}")
    slope, intercept = round(float(np.exp(found.x[0])), 3), float(found.x[1])
    while True:
        answers = [_answer([faces], thresholds, Calibration(slope, intercept)) for faces in albums]
        if min(map(_share_right, answers)) >= ASK_PRECISION:
            break
        intercept -= _CAUTION_STEP
    if not any(map(len, answers)):
        raise RuntimeError("no question of this pack is sure enough to be asked")
    return {"slope": slope, "intercept": round(intercept, 3)}


def measure_questions(
    albums: Sequence[FoundFaces], thresholds: Thresholds, calibration: dict[str, float]
) -> tuple[int, float]:
    """How many questions would be asked over all rounds, and the share of them that is right (1 if there are none)."""
    answers = _answer(albums, thresholds, Calibration(calibration["slope"], calibration["intercept"]))
    return len(answers), _share_right(answers)


def _answer(albums: Sequence[FoundFaces], thresholds: Thresholds, curve: Calibration) -> NDArray[np.bool_]:
    least = SuggestionSettings().min_confidence
    return np.concatenate(
        [
            answer_rounds(
                faces,
                name_faces(faces, group_album(faces, thresholds.grouping)),
                thresholds.suggest_floor,
                curve,
                least,
            )
            for faces in albums
        ]
    )


def _share_right(answers: NDArray[np.bool_]) -> float:
    return float(answers.mean()) if len(answers) else 1.0


def _log_odds(curve: Calibration, questions: Questions) -> NDArray[np.float64]:
    sure = curve.confidences(questions.scores, questions.margins, questions.supports)
    return np.asarray(np.log(sure / (1 - sure)), np.float64)
