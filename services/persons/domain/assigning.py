"""Giving faces to people and taking them back.

Locks are taken in one order everywhere: faces by id, then persons by id. So of many writers of one face one goes first and the
others see what it did, and no two can wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.persons.domain.model import (
    Assignment,
    Change,
    ChangeKind,
    FaceStanding,
    PersonsDeps,
    Source,
)
from services.persons.domain.people import refuse_inactive
from services.persons.domain.refreshing import settle_people
from services.persons.repository.assignments import (
    delete_assignments,
    lock_standings,
    write_assignments,
)
from services.persons.repository.changes import record_change
from services.persons.repository.exclusions import find_exclusion, insert_exclusion
from services.persons.repository.persons import get_person, lock_persons
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import EtagMismatch, KithError, NotFound, PreconditionFailed, Reason
from shared.jobs.model import ItemFailure


@dataclass(frozen=True, slots=True)
class AssignFaces:
    """Faces to give to a person. ``etag``: of the one face's present assignment, which it then replaces."""

    library_id: str
    face_ids: Sequence[UUID]
    person_id: UUID
    source: Source = Source.HUMAN
    confidence: float = 1.0
    etag: str = ""
    partial: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FacesAssigned:
    """Assignments as they are now, faces that could not go, and the change (None if nothing changed)."""

    assignments: list[Assignment]
    failures: list[ItemFailure]
    change_id: UUID | None


@dataclass(frozen=True, slots=True)
class UnassignFace:
    """A face to take from its person; ``exclude`` remembers that it is not them."""

    library_id: str
    face_id: UUID
    etag: str = ""
    exclude: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FaceUnassigned:
    """Whom the face was taken from, and the change."""

    person_id: UUID
    change_id: UUID


@dataclass(frozen=True, slots=True)
class ExcludeFace:
    """A face that is not that person."""

    library_id: str
    face_id: UUID
    person_id: UUID
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FaceExcluded:
    """The exclusion, and the change (None if it was excluded already)."""

    exclusion_id: UUID
    change_id: UUID | None


async def assign_faces(tx: Transaction, deps: PersonsDeps, command: AssignFaces, caller: Caller) -> FacesAssigned:
    """Give faces to a person: all of them, or with ``partial`` those that can go.

    Raises :class:`NotFound`, :class:`EtagMismatch` or :class:`PreconditionFailed` for the first face that cannot go, unless
    ``partial``; and for a person that cannot be worked with.
    """
    standings = await lock_standings(tx, command.library_id, command.face_ids, command.person_id)
    # Whoever loses a face changes as well; the locked faces keep it from being somebody else by then.
    holders = {standing.assignment.person_id for standing in standings.values() if standing.assignment}
    await lock_persons(tx, command.library_id, {command.person_id, *holders})
    refuse_inactive(await get_person(tx, command.library_id, command.person_id))
    failures: list[ItemFailure] = []
    settled: list[Assignment] = []
    to_write: list[FaceStanding] = []
    for face_id in command.face_ids:
        standing = standings.get(face_id)
        try:
            if standing is None:
                raise NotFound("face", str(face_id))
            present = _check_standing(standing, command)
        except KithError as error:
            if not command.partial:
                raise
            failures.append(ItemFailure(str(face_id), error.reason.value, error.message))
            continue
        if present is None:
            to_write.append(standing)
        else:
            settled.append(present)
    if not to_write:
        return FacesAssigned(settled, failures, None)
    replaced = [standing.assignment for standing in to_write if standing.assignment is not None]
    face_ids = [standing.face_id for standing in to_write]
    losers = {assignment.person_id for assignment in replaced}
    change = Change(
        ChangeKind.FACES_ASSIGNED,
        person_ids=sorted({command.person_id, *losers}),
        face_ids=face_ids,
        before={"assignments": [describe_assignment(assignment) for assignment in replaced]},
        after={
            "assignments": [
                {
                    "face_id": str(face_id),
                    "person_id": str(command.person_id),
                    "source": command.source.value,
                    "confidence": command.confidence,
                }
                for face_id in face_ids
            ]
        },
        reason=command.reason,
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    written = await write_assignments(
        tx, deps.clock, command.library_id, command.person_id, to_write, command.source, command.confidence, change_id
    )
    await settle_people(tx, deps, command.library_id, face_ids, {command.person_id, *losers})
    return FacesAssigned(settled + written, failures, change_id)


async def unassign_face(tx: Transaction, deps: PersonsDeps, command: UnassignFace, caller: Caller) -> FaceUnassigned:
    """Take a face from its person.

    Raises :class:`NotFound`, :class:`EtagMismatch`, or :class:`PreconditionFailed` with FACE_NOT_ASSIGNED.
    """
    standings = await lock_standings(tx, command.library_id, [command.face_id], None)
    standing = standings.get(command.face_id)
    if standing is None:
        raise NotFound("face", str(command.face_id))
    held = standing.assignment
    if held is None:
        raise PreconditionFailed(
            f"face '{command.face_id}' has no person",
            reason=Reason.FACE_NOT_ASSIGNED,
            metadata={"face_id": str(command.face_id)},
        )
    if command.etag and command.etag != held.etag:
        raise EtagMismatch("assignment", str(command.face_id), held.etag)
    await lock_persons(tx, command.library_id, [held.person_id])
    change = Change(
        ChangeKind.FACES_UNASSIGNED,
        person_ids=[held.person_id],
        face_ids=[command.face_id],
        before={"assignments": [describe_assignment(held)]},
        after={"excluded": command.exclude},
        reason=command.reason,
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    await delete_assignments(tx, [command.face_id])
    if command.exclude:
        await insert_exclusion(tx, deps, command.library_id, command.face_id, held.person_id, caller.subject, change_id)
    await settle_people(tx, deps, command.library_id, [command.face_id], {held.person_id})
    return FaceUnassigned(held.person_id, change_id)


async def exclude_face(tx: Transaction, deps: PersonsDeps, command: ExcludeFace, caller: Caller) -> FaceExcluded:
    """Remember for ever that a face is not a person; takes the face from them if they have it.

    Raises :class:`NotFound` for an unknown face or person. Excluding twice changes nothing.
    """
    standings = await lock_standings(tx, command.library_id, [command.face_id], command.person_id)
    standing = standings.get(command.face_id)
    if standing is None:
        raise NotFound("face", str(command.face_id))
    await get_person(tx, command.library_id, command.person_id, lock=True)
    existing = await find_exclusion(tx, command.face_id, command.person_id)
    if existing is not None:
        return FaceExcluded(existing, None)
    held = standing.assignment if standing.assignment and standing.assignment.person_id == command.person_id else None
    change = Change(
        ChangeKind.FACE_EXCLUDED,
        person_ids=[command.person_id],
        face_ids=[command.face_id],
        before={"assignments": [describe_assignment(held)] if held else []},
        after={"excluded": True},
        reason=command.reason,
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    exclusion_id = await insert_exclusion(
        tx, deps, command.library_id, command.face_id, command.person_id, caller.subject, change_id
    )
    if held is not None:
        await delete_assignments(tx, [command.face_id])
        await settle_people(tx, deps, command.library_id, [command.face_id], {command.person_id})
    return FaceExcluded(exclusion_id, change_id)


def describe_assignment(assignment: Assignment) -> dict[str, Any]:
    """What the ledger keeps of an assignment: enough to make it again."""
    return {
        "face_id": str(assignment.face_id),
        "person_id": str(assignment.person_id),
        "source": assignment.source.value,
        "confidence": assignment.confidence,
        "version": assignment.version,
    }


def _check_standing(standing: FaceStanding, command: AssignFaces) -> Assignment | None:
    """None if the face is to be written, its assignment if that is right already; raises why it cannot go."""
    face_id = str(standing.face_id)
    held = standing.assignment
    if command.etag and (held is None or held.etag != command.etag):
        raise EtagMismatch("assignment", face_id, held.etag if held else "")
    if held is not None and held.person_id == command.person_id:
        upgrade = held.source is Source.MACHINE and command.source is Source.HUMAN
        return None if upgrade else held
    if standing.state != "ACTIVE":
        raise PreconditionFailed(
            f"face '{face_id}' is {standing.state.lower().replace('_', ' ')}",
            reason=Reason.FACE_NOT_ACTIVE,
            metadata={"face_id": face_id, "state": standing.state},
        )
    if standing.excluded:
        raise PreconditionFailed(
            f"a human said that face '{face_id}' is not this person",
            reason=Reason.FACE_EXCLUDED,
            metadata={"face_id": face_id, "person_id": str(command.person_id)},
        )
    if held is not None and (not command.etag or _outranked(held, command.source)):
        raise PreconditionFailed(
            f"face '{face_id}' has a person already",
            reason=Reason.FACE_ALREADY_ASSIGNED,
            metadata={"face_id": face_id, "person_id": str(held.person_id), "etag": held.etag},
        )
    return None


def _outranked(held: Assignment, source: Source) -> bool:
    return held.source is Source.HUMAN and source is Source.MACHINE
