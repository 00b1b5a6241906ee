"""Giving faces to people and taking them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.persons.domain.model import (
    Assignment,
    Change,
    ChangeKind,
    FaceStanding,
    Hold,
    Move,
    PersonsDeps,
    Source,
)
from services.persons.domain.people import refuse_inactive
from services.persons.domain.settling import settle_change
from services.persons.repository.assignments import lock_standings
from services.persons.repository.changes import record_change
from services.persons.repository.exclusions import (
    Exclusion,
    find_exclusion,
    get_exclusion,
    make_exclusions,
    take_back_exclusions,
)
from services.persons.repository.moves import move_faces
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
class DeleteExclusion:
    """An exclusion to take back."""

    library_id: str
    exclusion_id: UUID
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
    standings, people = await lock_standings(
        tx, command.library_id, command.face_ids, [command.person_id], target=command.person_id
    )
    person = people.get(command.person_id)
    if person is None:
        raise NotFound("person", str(command.person_id))
    refuse_inactive(person)
    failures: list[ItemFailure] = []
    settled: list[Assignment] = []
    going: list[FaceStanding] = []
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
            going.append(standing)
        else:
            settled.append(present)
    if not going:
        return FacesAssigned(settled, failures, None)
    moves = [Move(standing.face_id, _make_hold(standing, command)) for standing in going]
    losers = {standing.assignment.person_id for standing in going if standing.assignment}
    face_ids = [move.face_id for move in moves]
    change = Change(
        ChangeKind.FACES_ASSIGNED, person_ids={command.person_id, *losers}, face_ids=face_ids, reason=command.reason
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    written = await move_faces(tx, deps.clock, command.library_id, change_id, moves)
    await settle_change(tx, deps, command.library_id, change_id, face_ids)
    return FacesAssigned(settled + [written[face_id] for face_id in face_ids], failures, change_id)


async def unassign_face(tx: Transaction, deps: PersonsDeps, command: UnassignFace, caller: Caller) -> FaceUnassigned:
    """Take a face from its person.

    Raises :class:`NotFound`, :class:`EtagMismatch`, or :class:`PreconditionFailed` with FACE_NOT_ASSIGNED.
    """
    standings, _ = await lock_standings(tx, command.library_id, [command.face_id], [])
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
    change = Change(
        ChangeKind.FACES_UNASSIGNED, person_ids=[held.person_id], face_ids=[command.face_id], reason=command.reason
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    await move_faces(tx, deps.clock, command.library_id, change_id, [Move(command.face_id, None)])
    if command.exclude:
        made = _new_exclusion(deps, command.face_id, held.person_id, caller)
        await make_exclusions(tx, command.library_id, change_id, [made])
    await settle_change(tx, deps, command.library_id, change_id, [command.face_id])
    return FaceUnassigned(held.person_id, change_id)


async def exclude_face(tx: Transaction, deps: PersonsDeps, command: ExcludeFace, caller: Caller) -> FaceExcluded:
    """Remember for ever that a face is not a person; takes the face from them if they have it.

    Raises :class:`NotFound` for an unknown face or person, :class:`PreconditionFailed` for a merged or deleted one.
    Excluding twice changes nothing.
    """
    standings, people = await lock_standings(tx, command.library_id, [command.face_id], [command.person_id])
    standing, person = standings.get(command.face_id), people.get(command.person_id)
    if standing is None:
        raise NotFound("face", str(command.face_id))
    if person is None:
        raise NotFound("person", str(command.person_id))
    existing = await find_exclusion(tx, command.face_id, command.person_id)
    if existing is not None:
        return FaceExcluded(existing, None)
    refuse_inactive(person)
    held = standing.assignment is not None and standing.assignment.person_id == command.person_id
    change = Change(
        ChangeKind.FACE_EXCLUDED, person_ids=[command.person_id], face_ids=[command.face_id], reason=command.reason
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    made = _new_exclusion(deps, command.face_id, command.person_id, caller)
    await make_exclusions(tx, command.library_id, change_id, [made])
    if held:
        await move_faces(tx, deps.clock, command.library_id, change_id, [Move(command.face_id, None)])
        await settle_change(tx, deps, command.library_id, change_id, [command.face_id])
    return FaceExcluded(made.exclusion_id, change_id)


async def delete_exclusion(tx: Transaction, deps: PersonsDeps, command: DeleteExclusion, caller: Caller) -> UUID:
    """Take an exclusion back; returns the change. Raises :class:`NotFound`."""
    found = await get_exclusion(tx, command.library_id, command.exclusion_id)
    await lock_standings(tx, command.library_id, [found.face_id], [found.person_id])
    # Somebody may have taken it back, or merged the person, while we waited.
    found = await get_exclusion(tx, command.library_id, command.exclusion_id)
    change = Change(
        ChangeKind.EXCLUSION_DELETED, person_ids=[found.person_id], face_ids=[found.face_id], reason=command.reason
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    await take_back_exclusions(tx, change_id, [command.exclusion_id])
    return change_id


def _make_hold(standing: FaceStanding, command: AssignFaces) -> Hold:
    held = standing.assignment
    # A human who confirms a machine's assignment says nothing about the face as a prototype.
    choice = held.choice if held is not None and held.person_id == command.person_id else None
    return Hold(command.person_id, command.source, command.confidence, choice)


def _new_exclusion(deps: PersonsDeps, face_id: UUID, person_id: UUID, caller: Caller) -> Exclusion:
    return Exclusion(deps.ids.new_uuid(), face_id, person_id, caller.subject, deps.clock.now())


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
