"""How many faces of a person are still to be found.

The estimator. Every unassigned face that is like the person at or above the floor, and like nobody else more, is a candidate;
its calibrated confidence is the chance that it is theirs. So the expected number of their faces among the candidates is the sum
of the confidences. Its variance has two parts:

- that of the sum of independent yes and no (Poisson-binomial): the sum of c * (1 - c);
- that of the calibration, whose level is known to a standard deviation of s in log-odds: a change of the level by d
  changes the sum by d * sum(c * (1 - c)), so (s * sum(c * (1 - c)))^2. s^2 = 1 / (1 / L^2 + I), L the standard deviation
  of the model pack's level and I what the library's answers have told of it.

Where a search is full there are candidates nobody looked at, all less alike than ``reach``. They are taken to be as dense, by
cosine, as just above it, down to the floor; and that guess to be off by as much as it adds.

Some faces are like nothing known of their person (turned away, blurred) and so no candidates: a share u of those missing,
4 % on generated libraries (``bench/embeddings.py``, r100), which may be off by as much. With n = the sum above, n / (1 - u)
are missing; the variance grows by u * n / (1 - u) for how many it happens to be, and by (u * n / (1 - u))^2 for the share.

The interval is the mean +- 1.645 standard deviations (90 % of a normal distribution), and does not go below 0.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.suggestions.domain.discovering import EXCLUDED_IN_QUERY
from services.suggestions.domain.judging import Candidates, judge_faces
from services.suggestions.domain.model import Question, SuggestionsDeps
from services.suggestions.domain.people import KnownPeople, make_rules, read_people
from services.suggestions.domain.ports import FaceCensus, FacesWithin, PersonQuery
from services.suggestions.repository.candidates import (
    Pair,
    list_found_faces,
    read_person_pairs,
)
from services.suggestions.repository.completeness import count_faces, measure_answers
from services.suggestions.repository.known import check_persons, find_active_model
from shared.db.engine import Database
from shared.faces.calibration_fit import LEVEL_SD
from shared.faces.embeddings import decode_embeddings

Z_90: Final = 1.645
UNLIKE_SHARE: Final = 0.04
"""Share of a person's missing faces that no search finds."""

DENSITY_STEP: Final = 0.05
"""Width, as a cosine, of the band above ``reach`` whose density is carried on below it."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many faces are missing, with a 90 % interval; ``extrapolated``: not all candidates were looked at."""

    missing: float
    low: float
    high: float
    extrapolated: bool


NOTHING_MISSING: Final = Estimate(0.0, 0.0, 0.0, False)


@dataclass(frozen=True, slots=True)
class Completeness:
    """How many faces a person has, how many unassigned ones were counted, and the estimate of how many of these are theirs."""

    assigned: int
    candidates: int
    estimate: Estimate


async def estimate_completeness(
    database: Database, deps: SuggestionsDeps, faces: FaceCensus, library_id: str, person_id: UUID
) -> Completeness:
    """Count what is missing of a person, in one search and seven statements, whatever is found.

    Raises :class:`NotFound` for an unknown person, :class:`PreconditionFailed` for one merged or deleted.
    """
    async with database.snapshot() as tx:
        await check_persons(tx, library_id, [person_id])
        assigned = await count_faces(tx, person_id)
        model = await find_active_model(tx, library_id)
        if model is None:
            return Completeness(assigned, 0, NOTHING_MISSING)
        people = await read_people(tx, library_id, model)
        refused = (await read_person_pairs(tx, [person_id])).refused
        information = await measure_answers(tx, library_id, model.model_version)
    rules = make_rules(model, deps.settings)
    query = _make_query(people, person_id, refused)
    if not len(query.vectors):
        return Completeness(assigned, 0, NOTHING_MISSING)
    limit = deps.settings.completeness_candidates
    within = await faces.find_all_unassigned(library_id, model.model_version, query, limit, rules.floor)
    async with database.snapshot() as tx:
        found = await list_found_faces(tx, library_id, model.model_version, within.face_ids, [person_id])
    refused |= {(each.face.face_id, owner) for each in found for owner in each.refused}
    candidates = Candidates(
        [each.face for each in found], decode_embeddings([each.embedding for each in found], model.dimension)
    )
    questions = await asyncio.to_thread(judge_faces, candidates, people, rules, refused, {person_id})
    return Completeness(assigned, len(questions), _estimate(questions, within, rules.floor, information))


def estimate_missing(
    confidences: Floats, scores: Floats, *, floor: float, reach: float, information: float
) -> Estimate:
    """The estimate (see the module) from the confidences (N,) and cosines (N,) of the candidates.

    ``reach``: the cosine from which on no candidate is missing, ``floor`` if none is at all. ``information``: what answers told
    of the calibration's level, 0 without answers.
    """
    seen = float(confidences.sum())
    doubt = float((confidences * (1.0 - confidences)).sum())
    level_variance = 1.0 / (1.0 / LEVEL_SD**2 + information)
    unseen = 0.0
    if reach > floor:
        density = float(confidences[(scores >= reach) & (scores < reach + DENSITY_STEP)].sum()) / DENSITY_STEP
        unseen = max(0.0, density * (reach - floor) - float(confidences[scores < reach].sum()))
    missing = (seen + unseen) / (1.0 - UNLIKE_SHARE)
    unlike = UNLIKE_SHARE * missing
    spread = Z_90 * math.sqrt(doubt + level_variance * doubt**2 + unseen**2 + unlike + unlike**2)
    return Estimate(missing, max(0.0, missing - spread), missing + spread, reach > floor)


def _make_query(people: KnownPeople, person_id: UUID, refused: set[Pair]) -> PersonQuery:
    """All there is to recognise a person by, so that whoever is like any of it is found."""
    number = people.numbers[person_id]
    birth = people.persons[number].birth_date
    return PersonQuery(
        person_id=person_id,
        vectors=people.references.vectors[people.references.owners == number],
        # The newest ids first: they are of faces that are asked about today.
        excluded=tuple(sorted(face_id for face_id, _ in refused)[-EXCLUDED_IN_QUERY:]),
        birth_year=birth.value.year if birth else None,
    )


def _estimate(questions: list[Question], within: FacesWithin, floor: float, information: float) -> Estimate:
    return estimate_missing(
        np.array([question.confidence for question in questions], dtype=np.float64),
        np.array([question.evidence.score for question in questions], dtype=np.float64),
        floor=floor,
        reach=within.reach,
        information=information,
    )
