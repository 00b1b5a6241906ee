"""Giving a person more faces than one call can: by a job, whose steps all fill one change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from services.persons.domain.assigning import AssignFaces, AssignmentPlan, ask_doubles, move_planned, plan_assignment
from services.persons.domain.model import Change, ChangeKind, PersonsDeps, Source
from services.persons.domain.people import refuse_inactive
from services.persons.repository.changes import fill_change, record_change
from services.persons.repository.ledger_pages import get_change
from services.persons.repository.persons import get_person
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import NotFound, PreconditionFailed
from shared.jobs.model import ItemFailure, Job, NewJob
from shared.jobs.repository import create_job

ASSIGN_FACES: Final = "persons.assign_faces"


@dataclass(frozen=True, slots=True)
class BatchStep:
    """What a step of the job did to its faces: given to the person, refused, and left alone as the change was undone."""

    assigned: int
    failures: Sequence[ItemFailure]
    skipped: int = 0


async def start_assigning(tx: Transaction, deps: PersonsDeps, command: AssignFaces, caller: Caller) -> tuple[UUID, Job]:
    """Start the job, and enter the change that it fills with each face it moves; answers with both.

    Raises :class:`NotFound` or :class:`PreconditionFailed` for a person that cannot be worked with now.
    """
    refuse_inactive(await get_person(tx, command.library_id, command.person_id))
    change = Change(ChangeKind.FACES_ASSIGNED, person_ids=[command.person_id], reason=command.reason)
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    job = NewJob(
        library_id=command.library_id,
        kind=ASSIGN_FACES,
        unit="face",
        # One slice: of two faces in a photo the first in order counts.
        slices=[{"face_ids": [str(face_id) for face_id in command.face_ids]}],
        created_by=caller.subject,
        spec={
            "change_id": str(change_id),
            "person_id": str(command.person_id),
            "source": command.source.value,
            "confidence": command.confidence,
        },
        total=len(command.face_ids),
    )
    return change_id, await create_job(tx, job, deps.ids, deps.clock)


def read_command(library_id: str, spec: dict[str, Any], face_ids: Sequence[str]) -> AssignFaces:
    """A part of what the job was started with."""
    return AssignFaces(
        library_id=library_id,
        face_ids=[UUID(face_id) for face_id in face_ids],
        person_id=UUID(spec["person_id"]),
        source=Source(spec["source"]),
        confidence=spec["confidence"],
        partial=True,
    )


async def assign_part(
    tx: Transaction, deps: PersonsDeps, command: AssignFaces, change_id: UUID, started_by: str
) -> BatchStep:
    """Give a part of the faces to the person, as a part of the job's change; ``command`` as :func:`read_command` makes it.

    A person that was merged, deleted or forgotten since refuses each face. What is undone is not filled any further.
    """
    change = await get_change(tx, command.library_id, change_id, lock=True)
    if change.undone_by is not None:
        return BatchStep(0, (), skipped=len(command.face_ids))
    try:
        plan = await plan_assignment(tx, command)
    except (NotFound, PreconditionFailed) as error:
        # Faces are refused one by one, so this is about the person.
        refused = [ItemFailure(str(face_id), error.reason.value, error.message) for face_id in command.face_ids]
        plan = AssignmentPlan([], [], refused, [])
    await ask_doubles(tx, deps, command, plan, started_by)
    if plan.going:
        await move_planned(tx, deps, command, plan, change_id, part=True)
        await fill_change(tx, change_id, [standing.face_id for standing in plan.going])
    return BatchStep(len(plan.settled) + len(plan.going), plan.failures)
