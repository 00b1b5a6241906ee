"""Assigning the faces that are surely those of known people, and asking about the doubtful ones.

It is find-more for everybody, with another end: what is at least as sure as the target precision goes to its person by the
persons service, as a machine's word. Sure enough and yet only asked about is what is no machine's business, by the same rules
as in a DUAL run of the clustering service: a second face of a person in one photo, a face of quite another age than the
prototype it is most like, and one that a human has put into its cluster by hand. Faces of a cluster that a human has put away
are left alone. What changes between the look and the word, the persons service refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.suggestions.domain.discovering import FindMore, Looked, create_person_job
from services.suggestions.domain.model import Question, SuggestionMethod, SuggestionsDeps
from services.suggestions.domain.people import MatchRules
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.faces.eras import ADJACENT_ERA
from shared.jobs.handing_over import Handover, make_handovers
from shared.jobs.model import Job

ASSIGN_KNOWN: Final = "suggestions.assign_known"
# As many faces as a search may bring for each vector of a person: the surer of them are not questions.
MOST_PER_PERSON: Final = 1000


@dataclass(frozen=True, slots=True)
class AssignKnown:
    """Whose faces to assign, at which calibrated confidence; ``person_ids`` empty = of every active person with faces."""

    library_id: str
    person_ids: Sequence[UUID]
    target_precision: float
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Divided:
    """Questions that need not be asked, as their faces are sure, and the others."""

    sure: list[Question]
    doubtful: list[Question]


async def start_assign_known(tx: Transaction, deps: SuggestionsDeps, command: AssignKnown, caller: Caller) -> Job:
    """Create the job; whose faces it looks for is settled here. Raises as :func:`create_person_job`."""
    spec = {"target_precision": command.target_precision, "dry_run": command.dry_run}
    return await create_person_job(tx, deps, ASSIGN_KNOWN, command.library_id, command.person_ids, spec, caller)


def make_search(library_id: str, deps: SuggestionsDeps) -> FindMore:
    """How to look for faces to assign."""
    return FindMore(
        library_id=library_id,
        person_ids=(),
        method=SuggestionMethod.PROTOTYPES,
        max_per_person=deps.settings.max_per_person,
        min_confidence=deps.settings.min_confidence,
        candidates=MOST_PER_PERSON,
    )


def divide_questions(looked: Looked, rules: MatchRules, target_precision: float) -> Divided:
    """What a machine may answer by itself, the surest first, and what only a human may."""
    faces = {each.face.face_id: each for each in looked.faces}
    shown: set[tuple[str, UUID]] = set()
    divided = Divided([], [])
    for question in sorted(looked.questions, key=lambda each: (-each.confidence, -each.evidence.score, each.face_id)):
        face, place = faces[question.face_id], (question.asset_id, question.person_id)
        if face.dismissed:
            continue
        is_double = not face.may_double and (question.evidence.same_photo or place in shown)
        if _is_sure(question, rules, target_precision) and not face.pinned and not is_double:
            divided.sure.append(question)
            shown.add(place)
        else:
            divided.doubtful.append(question)
    return divided


def _is_sure(question: Question, rules: MatchRules, target_precision: float) -> bool:
    era_score = question.evidence.era_score
    return (
        question.confidence >= target_precision
        and question.evidence.score >= rules.assign_floor
        and (era_score is None or era_score >= ADJACENT_ERA)
    )


def list_handovers(questions: Iterable[Question]) -> list[Handover]:
    """The faces of these questions to their persons, in this order."""
    by_person: dict[UUID, dict[UUID, float]] = {}
    for question in questions:
        by_person.setdefault(question.person_id, {})[question.face_id] = question.confidence
    return [handover for person_id, faces in by_person.items() for handover in make_handovers(person_id, faces)]
