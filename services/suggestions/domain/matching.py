"""Who a face may be, now, and what keeps it from being asked about.

The judgement is that of :mod:`~services.suggestions.domain.judging`, of one face and some people instead of many faces and
everybody. Who these people are is asked of Qdrant, wide enough that the best other person is always among them; what is said
of them is read from PostgreSQL. So a pair has the evidence here that a job would find for it at this moment.

The people whom the face cannot be are shown, and are nobody's rivals: each is judged as if only the rules against that one
pair did not hold. A face that is a prototype is not held against itself; what it adds to a centroid of its person stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import numpy as np

from services.suggestions.domain.discovering import note_same_photo
from services.suggestions.domain.judging import Candidates, make_question, strike_out
from services.suggestions.domain.model import Evidence, Question, SuggestionsDeps
from services.suggestions.domain.people import KnownPeople, MatchRules, make_rules
from services.suggestions.domain.ports import PersonSearch
from services.suggestions.repository.candidates import list_shown_persons
from services.suggestions.repository.known import (
    ActiveModel,
    find_active_model,
    read_known,
)
from services.suggestions.repository.matched import (
    MatchedFace,
    Refusal,
    get_matched_face,
    list_barred,
    list_refusals,
)
from shared.db.engine import Database
from shared.errors import PreconditionFailed, Reason
from shared.faces.embeddings import decode_embeddings
from shared.faces.eras import is_before_birth
from shared.faces.matching import PersonScores, score_persons


class Rule(StrEnum):
    """What keeps a pair from being asked about; of SAME_PHOTO, only a machine from assigning it."""

    EXCLUDED = "excluded"
    REJECTED = "rejected"
    BEFORE_BIRTH = "before birth"
    NOT_A_FACE = "not a face"
    IGNORED = "ignored"
    ASSIGNED = "assigned"
    HIDDEN_PERSON = "hidden person"
    BELOW_FLOOR = "below floor"
    OTHER_PERSON = "other person"
    UNSURE = "unsure"
    SAME_PHOTO = "same photo"
    PERSON_GONE = "person gone"
    NOTHING_KNOWN = "nothing known"


@dataclass(frozen=True, slots=True)
class PersonMatch:
    """What there is to say of a face and a person. ``confidence`` 0..1; ``evidence`` is None of somebody there is nothing to
    hold against the face of: they are gone or without references.
    """

    person_id: UUID
    confidence: float
    evidence: Evidence | None
    blocked_by: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """All that binds a pair beside the vectors. ``shown``: (asset, person) pairs, other faces of persons in the photo."""

    face: MatchedFace
    refusals: Mapping[UUID, set[Refusal]]
    shown: set[tuple[str, UUID]]


async def match_face(
    database: Database, deps: SuggestionsDeps, search: PersonSearch, library_id: str, face_id: UUID, limit: int
) -> list[PersonMatch]:
    """The ``limit`` persons a face is most like, best first, whatever speaks against them; nothing is stored.

    Two calls of Qdrant and six statements, no transaction open meanwhile. Raises :class:`NotFound`, and
    :class:`PreconditionFailed` with MODEL_MISMATCH for a face without an embedding of the library's active model.
    """
    return (await _match(database, deps, search, library_id, face_id, limit, ()))[:limit]


async def match_pair(
    database: Database, deps: SuggestionsDeps, search: PersonSearch, library_id: str, face_id: UUID, person_id: UUID
) -> PersonMatch:
    """One face and one person, as :func:`match_face`, also where others are more like it."""
    found = await _match(database, deps, search, library_id, face_id, 1, (person_id,))
    return next(each for each in found if each.person_id == person_id)


async def _match(
    database: Database,
    deps: SuggestionsDeps,
    search: PersonSearch,
    library_id: str,
    face_id: UUID,
    limit: int,
    also: Collection[UUID],
) -> list[PersonMatch]:
    async with database.snapshot() as tx:
        model = await find_active_model(tx, library_id)
        face = await get_matched_face(tx, library_id, face_id, model.model_version if model else "")
        if model is None or face.embedding is None:
            raise _without_embedding(face_id, model)
        refusals = await list_refusals(tx, face_id)
        barred = await list_barred(tx, library_id, face.face.captured)
    candidates = Candidates([face.face], decode_embeddings([face.embedding], model.dimension))
    # One more than asked for: the last one has a rival too.
    without = dict.fromkeys([barred.gone, barred.gone | barred.unborn | frozenset(refusals)])
    nearest = await search.find_nearest(
        library_id, model.model_version, candidates.vectors[0], list(without), limit + 1, without_face=face_id
    )
    among = nearest | set(also)
    async with database.snapshot() as tx:
        known = await read_known(tx, library_id, model.model_version, among)
        shown = await list_shown_persons(tx, library_id, [face.face.asset_id], sorted(among), without_face=face_id)
    others = [each for each in known.prototypes if each.face.face_id != face_id]
    people = KnownPeople(known.persons, others, known.centroids, model.dimension)
    rules = make_rules(model, deps.settings)
    matches = await asyncio.to_thread(
        judge_people, candidates, people, rules, Circumstances(face, refusals, shown), deps.settings.min_confidence
    )
    matched = {each.person_id for each in matches}
    return matches + [_match_nobody(person_id, people) for person_id in sorted(set(also) - matched)]


def judge_people(
    candidates: Candidates,
    people: KnownPeople,
    rules: MatchRules,
    circumstances: Circumstances,
    min_confidence: float,
) -> list[PersonMatch]:
    """The only candidate and everybody there is something to recognise by, the most alike first."""
    if not len(people.references.owners):
        return []
    face = circumstances.face.face
    scores = score_persons(candidates.vectors, people.references, rules.floor)
    table = PersonScores(scores.scores.copy(), scores.support)
    strike_out(table, candidates, people, [(face.face_id, person_id) for person_id in circumstances.refusals])
    best = float(table.scores.max())
    recognised = np.unique(people.references.owners)
    matches = []
    for number in recognised[np.argsort(-scores.scores[0, recognised], kind="stable")].tolist():
        struck = table.scores[0, number]
        table.scores[0, number] = scores.scores[0, number]
        question = note_same_photo(make_question(candidates, people, rules, table, 0, number), circumstances.shown)
        table.scores[0, number] = struck
        blocked_by = _list_rules(question, people, rules, circumstances, best, min_confidence)
        matches.append(PersonMatch(question.person_id, question.confidence, question.evidence, blocked_by))
    return matches


def _list_rules(
    question: Question,
    people: KnownPeople,
    rules: MatchRules,
    circumstances: Circumstances,
    best: float,
    min_confidence: float,
) -> tuple[Rule, ...]:
    """In the order of :class:`Rule`; ``best`` is the score of the person the face is most like of those it may be."""
    face, evidence = circumstances.face, question.evidence
    person = people.persons[people.numbers[question.person_id]]
    refusals = circumstances.refusals.get(question.person_id, set())
    holds = {
        Rule.EXCLUDED: Refusal.EXCLUDED in refusals,
        Rule.REJECTED: Refusal.REJECTED in refusals,
        Rule.BEFORE_BIRTH: is_before_birth(person.birth_date, face.face.captured),
        Rule.NOT_A_FACE: face.state == "NOT_A_FACE",
        Rule.IGNORED: face.state == "IGNORED",
        Rule.ASSIGNED: face.assigned,
        Rule.HIDDEN_PERSON: person.hidden,
        Rule.BELOW_FLOOR: evidence.score < rules.floor,
        Rule.OTHER_PERSON: evidence.score < best,
        Rule.UNSURE: question.confidence < min_confidence,
        Rule.SAME_PHOTO: evidence.same_photo and not face.may_double,
    }
    return tuple(rule for rule, applies in holds.items() if applies)


def _match_nobody(person_id: UUID, people: KnownPeople) -> PersonMatch:
    rule = Rule.NOTHING_KNOWN if person_id in people.numbers else Rule.PERSON_GONE
    return PersonMatch(person_id, 0.0, None, (rule,))


def _without_embedding(face_id: UUID, model: ActiveModel | None) -> PreconditionFailed:
    version = model.model_version if model else ""
    return PreconditionFailed(
        f"face '{face_id}' has no embedding by the library's model '{version}'",
        reason=Reason.MODEL_MISMATCH,
        metadata={"expected": version, "actual": ""},
    )
