"""Whose are the unassigned faces? Every face against everybody who is known, and what a machine may make of the answer.

A face is like a person as it is like the most alike of their prototypes and mode centroids; the margin is what it is ahead
of the best other person, the support the number of the person's prototypes at or above the floor. The library's calibration,
fitted on its answers, makes a probability of the three. A person who was refused for the face, or born after its photo was
taken, is as if they were not there.

Faces surer than the target precision are assigned; the others from the least confidence on are asked about. So is what is
sure enough but no machine's business: a second face of a person in one photo, a face of quite another age than the most
alike prototype, and a face that a human has put into a cluster by hand. What a human has put away is left alone.

Cost: N * M * D * 2 operations for N faces and M references of D numbers, in matrix products over blocks. See
``docs/operations.md`` for figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from services.clustering.domain.model import ClusteringDeps
from services.clustering.grouping.request import Cancelled, GroupingCancelled
from services.clustering.repository.known import FaceBounds, Ints, KnownPeople
from services.clustering.repository.unassigned import FaceTable
from shared.faces.embeddings import Vectors
from shared.faces.eras import ADJACENT_ERA, ERA_ORDER, Era, EraSpan, list_era_spans, score_eras
from shared.faces.matching import ARCFACE_FLOOR, NO_RIVAL_SCORE

# Below any cosine: a person who cannot be the face's.
NEVER: Final = np.float32(-2.0)
NOBODY: Final = -1
# Cosines held at once, in two arrays: 32 MiB.
BLOCK_NUMBERS: Final = 4_000_000
MAX_BLOCK_ROWS: Final = 2048

Floats = npt.NDArray[np.float32]
Report = Callable[[int], None]


class Verdict(IntEnum):
    """What is to become of a face: left to be grouped, asked about and grouped, or given to its person."""

    LEAVE = 0
    ASK = 1
    ASSIGN = 2


@dataclass(frozen=True, slots=True)
class RecognitionRules:
    """``floor`` and ``assign_floor`` are cosines: below them nobody is recognised, or nothing assigned. ``assign_precision``
    and ``ask_confidence``: the least calibrated confidence, 0..1, to assign and to ask. ``asks_per_person``: the surest so
    many questions about each person.
    """

    floor: float
    assign_floor: float
    assign_precision: float
    ask_confidence: float
    asks_per_person: int


@dataclass(frozen=True, slots=True, eq=False)
class Recognised:
    """By row of the face table, (N,): ``people`` 0..P-1, or -1 where nobody reaches the floor, with their cosines as
    ``scores``, ``margins`` (NaN: there is nobody else), ``support``, the calibrated ``confidences`` and the ``verdicts``.
    """

    people: Ints
    scores: Floats
    margins: Floats
    support: Ints
    confidences: npt.NDArray[np.float64]
    verdicts: npt.NDArray[np.int8]

    def rows_to(self, verdict: Verdict) -> npt.NDArray[np.int64]:
        """The rows with this verdict."""
        return np.flatnonzero(self.verdicts == verdict)


def make_recognition_rules(deps: ClusteringDeps, known: KnownPeople) -> RecognitionRules:
    """The settings' floor, else the pack's, else ArcFace's; and the pack's floor of assignments, if it has one."""
    floor = deps.suggestions.floor
    return RecognitionRules(
        floor=known.thresholds.get("suggest_floor", ARCFACE_FLOOR) if floor is None else floor,
        assign_floor=known.thresholds.get("assign_floor", -1.0),
        assign_precision=deps.suggestions.assign_precision,
        ask_confidence=deps.suggestions.min_confidence,
        asks_per_person=deps.suggestions.max_per_person,
    )


def recognise_faces(
    known: KnownPeople,
    faces: FaceTable,
    bounds: FaceBounds,
    rules: RecognitionRules,
    report: Report = lambda done: None,
    cancelled: Cancelled = lambda: False,
) -> Recognised:
    """Hold every free face against everybody. Blocks; to be called in a thread, as numpy lets go of the interpreter.

    The vectors of ``faces`` must be of the model's own space, as ``known`` is: read them without a matcher. ``report`` is
    told how many faces are done. Deterministic; of equal persons the one with more references is taken. Memory: 26 bytes per
    face, two blocks of cosines (32 MiB) and one of faces (4 MiB at 512 dimensions). Raises :class:`GroupingCancelled` between
    two blocks.
    """
    count = len(faces.face_ids)
    found = Recognised(
        people=np.full(count, NOBODY, dtype=np.int32),
        scores=np.full(count, NEVER, dtype=np.float32),
        margins=np.full(count, np.nan, dtype=np.float32),
        support=np.zeros(count, dtype=np.int32),
        confidences=np.zeros(count),
        verdicts=np.zeros(count, dtype=np.int8),
    )
    people = len(known.people)
    eras = np.full(count, -1, dtype=np.int8)
    if people and count:
        wanted = np.flatnonzero(bounds.free & ~faces.dismissed)
        matcher = _Matcher(known, bounds, rules.floor)
        step = max(1, min(MAX_BLOCK_ROWS, BLOCK_NUMBERS // people))
        for start in range(0, len(wanted), step):
            if cancelled():
                raise GroupingCancelled
            rows = wanted[start : start + step]
            matcher.match(np.asarray(faces.vectors[rows], dtype=np.float32), rows, found, eras)
            report(start + len(rows))
    reached = np.flatnonzero(found.people >= 0)
    neutral = np.float32(known.calibration.neutral_margin)
    margins = np.where(np.isnan(found.margins[reached]), neutral, found.margins[reached])
    found.confidences[reached] = known.calibration.confidences(found.scores[reached], margins, found.support[reached])
    _judge(known, faces, bounds, rules, found, eras)
    return found


class _Matcher:
    """Matches blocks of faces, in arrays it makes once."""

    def __init__(self, known: KnownPeople, bounds: FaceBounds, floor: float) -> None:
        self._known = known
        self._bounds = bounds
        self._floor = floor
        self._born = known.born
        self._youngest = int(self._born.max(initial=0))

    def match(
        self, vectors: Vectors, rows: npt.NDArray[np.int64], found: Recognised, eras: npt.NDArray[np.int8]
    ) -> None:
        """Fill ``found`` at ``rows``, and ``eras`` with that of the most alike prototype."""
        scores = self._score(vectors)
        self._strike_out(scores, rows)
        block = np.arange(len(rows))
        best = np.argmax(scores, axis=1)
        own = scores[block, best]
        scores[block, best] = NEVER
        rival = scores.max(axis=1)
        reached = own >= self._floor
        block, best, own, rival = block[reached], best[reached], own[reached], rival[reached]
        support, era = self._support(vectors[block], best)
        at = rows[block]
        found.people[at] = best
        found.scores[at] = own
        ahead = own - np.maximum(rival, np.float32(NO_RIVAL_SCORE))
        found.margins[at] = np.where(rival <= NEVER, np.float32(np.nan), ahead)
        found.support[at] = support
        eras[at] = era

    def _score(self, vectors: Vectors) -> Floats:
        """The best cosine (B, P) of each face to each person."""
        layers = self._known.layers()
        scores: Floats = vectors @ next(layers).T
        for layer in layers:
            some = scores[:, : len(layer)]
            np.maximum(some, vectors @ layer.T, out=some)
        return scores

    def _support(self, vectors: Vectors, people: npt.NDArray[np.int64]) -> tuple[Ints, npt.NDArray[np.int8]]:
        """How many prototypes of its person each face (B,) is like, and the era of the most alike."""
        known = self._known
        support = np.zeros(len(people), dtype=np.int32)
        era = np.full(len(people), -1, dtype=np.int8)
        best = np.full(len(people), NEVER, dtype=np.float32)
        held = known.prototypes[people]
        for layer, start in enumerate(known.starts[: int(held.max(initial=0))].tolist()):
            rows = np.flatnonzero(held > layer)
            references = start + people[rows]
            cosines = np.einsum("bd,bd->b", vectors[rows], known.vectors[references])
            support[rows] += cosines >= self._floor
            better = cosines > best[rows]
            best[rows[better]] = cosines[better]
            era[rows[better]] = known.eras[references[better]]
        return support, era

    def _strike_out(self, scores: Floats, rows: npt.NDArray[np.int64]) -> None:
        refused = self._bounds.refused
        start, end = np.searchsorted(refused.rows, [rows[0], rows[-1] + 1])
        struck, people = refused.rows[start:end], refused.people[start:end]
        at = np.searchsorted(rows, struck)
        here = rows[at] == struck
        scores[at[here], people[here]] = NEVER
        last = self._bounds.last[rows]
        early = np.flatnonzero(last < self._youngest)
        if len(early):
            scores[early] = np.where(last[early, None] < self._born, NEVER, scores[early])


def _judge(
    known: KnownPeople,
    faces: FaceTable,
    bounds: FaceBounds,
    rules: RecognitionRules,
    found: Recognised,
    eras: npt.NDArray[np.int8],
) -> None:
    """Fill in the verdicts."""
    sure = (found.confidences >= rules.assign_precision) & (found.scores >= rules.assign_floor) & (found.people >= 0)
    rows = np.flatnonzero(sure)
    may = faces.anchors[rows] < 0
    may &= ~_among(rows, found.people[rows], bounds, len(known.people))
    may &= ~_of_another_age(known, bounds, found, eras, rows)
    rows = rows[may]
    rows = rows[_is_best_in_photo(faces, bounds, found, rows)]
    found.verdicts[found.confidences >= rules.ask_confidence] = Verdict.ASK
    found.verdicts[sure] = Verdict.ASK
    found.verdicts[rows] = Verdict.ASSIGN
    asked_about = np.array([person.asked_about for person in known.people], dtype=np.bool_)
    asked = found.rows_to(Verdict.ASK)
    kept = asked[asked_about[found.people[asked]]]
    kept = kept[_rank_by_person(found, kept) < rules.asks_per_person]
    found.verdicts[asked] = Verdict.LEAVE
    found.verdicts[kept] = Verdict.ASK


def _among(rows: npt.NDArray[np.int64], people: Ints, bounds: FaceBounds, count: int) -> npt.NDArray[np.bool_]:
    """Which of these rows' persons have another face in the photo, where the photo may not show one person twice."""
    shown = bounds.shown.rows.astype(np.int64) * count + bounds.shown.people
    return np.isin(rows * count + people, shown) & ~bounds.doubles[rows]


def _of_another_age(
    known: KnownPeople,
    bounds: FaceBounds,
    found: Recognised,
    eras: npt.NDArray[np.int8],
    rows: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Which of these rows show their person in an era that is not next to that of the most alike prototype."""
    far = np.zeros(len(rows), dtype=np.bool_)
    spans: dict[int, list[EraSpan]] = {}
    dated = np.flatnonzero((eras[rows] >= 0) & (bounds.first[rows] > 0))
    for index in dated.tolist():
        row = rows[index]
        number = int(found.people[row])
        born = known.people[number].birth_date
        if born is None:
            continue
        if number not in spans:
            spans[number] = list_era_spans(born)
        era = _find_era(spans[number], int(bounds.first[row]), int(bounds.last[row]))
        far[index] = score_eras(era, ERA_ORDER[eras[row]]) < ADJACENT_ERA
    return far


def _find_era(spans: list[EraSpan], first: int, last: int) -> Era | None:
    """As :func:`shared.faces.eras.find_era`, of days as numbers."""
    for span in spans:
        if first >= span.first.toordinal() and span.born.toordinal() <= last <= span.last.toordinal():
            return span.era
    return None


def _is_best_in_photo(
    faces: FaceTable, bounds: FaceBounds, found: Recognised, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which of these rows is the surest of its photo for its person; all of a photo that may show one person twice."""
    order = np.lexsort((rows, -found.scores[rows], -found.confidences[rows], found.people[rows], faces.assets[rows]))
    photos, people = faces.assets[rows[order]], found.people[rows[order]]
    follows = np.zeros(len(rows), dtype=np.bool_)
    follows[order[1:]] = (photos[1:] == photos[:-1]) & (people[1:] == people[:-1])
    return ~follows | bounds.doubles[rows]


def _rank_by_person(found: Recognised, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The place of each row among those of its person, the surest 0."""
    order = np.lexsort((rows, -found.scores[rows], -found.confidences[rows], found.people[rows]))
    people = found.people[rows[order]]
    begins = np.flatnonzero(np.concatenate([[True], people[1:] != people[:-1]])) if len(rows) else np.empty(0, np.int64)
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[order] = np.arange(len(rows)) - np.repeat(begins, np.diff(np.concatenate([begins, [len(rows)]])))
    return ranks
