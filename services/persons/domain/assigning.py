"""Giving faces to people and taking them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from services.persons.domain.rules import MachineRules, refuse_excluded
from services.persons.domain.settling import settle_change
from services.persons.repository.assignments import list_exemplified, lock_held, lock_standings
from services.persons.repository.changes import record_change
from services.persons.repository.doubles import list_face_photos
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
from shared.errors import Contention, EtagMismatch, KithError, NotFound, PreconditionFailed, Reason
from shared.jobs.asking import PairToAsk, ask_pairs_later, follow_people_later
from shared.jobs.model import ItemFailure


@dataclass(frozen=True, slots=True)
class AssignFaces:
    """Faces to give to a person. ``etag``: of the one face's present assignment, which it then replaces. ``confidences``:
    of the faces whose own is not ``confidence``.
    """

    library_id: str
    face_ids: Sequence[UUID]
    person_id: UUID
    source: Source = Source.HUMAN
    confidence: float = 1.0
    confidences: Mapping[UUID, float] = field(default_factory=dict)
    etag: str = ""
    partial: bool = False
    reason: str = ""

    def confidence_of(self, face_id: UUID) -> float:
        """How sure it is that a face is the person's, 0..1."""
        return self.confidences.get(face_id, self.confidence)


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

    exclusion: Exclusion
    change_id: UUID | None


@dataclass(frozen=True, slots=True)
class AssignmentPlan:
    """What giving faces to a person comes to: the locked faces that go, assignments that are right already, faces that cannot
    go, and those among them that would be doubles.
    """

    going: list[FaceStanding]
    settled: list[Assignment]
    failures: list[ItemFailure]
    doubles: list[UUID]


async def assign_faces(tx: Transaction, deps: PersonsDeps, command: AssignFaces, caller: Caller) -> FacesAssigned:
    """Give faces to a person: all of them, or with ``partial`` those that can go; a double is asked then.

    Raises :class:`NotFound`, :class:`EtagMismatch` or :class:`PreconditionFailed` for the first face that cannot go, unless
    ``partial``; and for a person that cannot be worked with.
    """
    plan = await plan_assignment(tx, command)
    await ask_doubles(tx, deps, command, plan, caller.subject)
    if not plan.going:
        return FacesAssigned(plan.settled, plan.failures, None)
    # Not those whom a human confirms: they stay whose they are.
    leaving = [held for standing in plan.going if (held := standing.assignment) and held.person_id != command.person_id]
    change = Change(
        ChangeKind.FACES_ASSIGNED,
        person_ids={command.person_id, *(held.person_id for held in leaving)},
        face_ids=[standing.face_id for standing in plan.going],
        reason=command.reason,
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    # Whose prototypes go: what was asked because of them is asked no more.
    bereft = await list_exemplified(tx, [held.face_id for held in leaving])
    await follow_people_later(tx, deps.ids, deps.clock, command.library_id, bereft, caller.subject)
    moved = await move_planned(tx, deps, command, plan, change_id)
    return FacesAssigned(plan.settled + moved, plan.failures, change_id)


async def plan_assignment(tx: Transaction, command: AssignFaces) -> AssignmentPlan:
    """Lock the faces and whoever has them, and see which can go; raises as :func:`assign_faces` does."""
    standings, people = await lock_standings(
        tx, command.library_id, command.face_ids, [command.person_id], target=command.person_id
    )
    person = people.get(command.person_id)
    if person is None:
        raise NotFound("person", str(command.person_id))
    refuse_inactive(person)
    rules = None
    if command.source is Source.MACHINE:
        photos = await list_face_photos(tx, command.library_id, command.face_ids, command.person_id)
        rules = MachineRules(person, photos)
    plan = AssignmentPlan([], [], [], [])
    for face_id in command.face_ids:
        standing = standings.get(face_id)
        try:
            if standing is None:
                raise NotFound("face", str(face_id))
            present = _check_standing(standing, command)
            if present is None and rules is not None:
                rules.admit(face_id)
        except KithError as error:
            if not command.partial:
                raise
            plan.failures.append(ItemFailure(str(face_id), error.reason.value, error.message))
            if error.reason is Reason.SAME_PHOTO_DOUBLE:
                plan.doubles.append(face_id)
            continue
        if present is None:
            plan.going.append(standing)
        else:
            plan.settled.append(present)
    return plan


async def move_planned(
    tx: Transaction,
    deps: PersonsDeps,
    command: AssignFaces,
    plan: AssignmentPlan,
    change_id: UUID,
    *,
    part: bool = False,
) -> list[Assignment]:
    """Move what goes, as a change or as a ``part`` of one; answers with the new assignments, in the order of the plan.

    Raises :class:`Contention` if a merge has brought the person the exclusion of a face while its lock was waited for.
    """
    moves = [Move(standing.face_id, _make_hold(standing, command)) for standing in plan.going]
    face_ids = [move.face_id for move in moves]
    written = await move_faces(tx, deps.clock, command.library_id, change_id, moves, unless_excluded=True)
    if len(written) < len(moves):
        raise Contention(f"person '{command.person_id}' was being merged: try again")
    await settle_change(tx, deps, command.library_id, change_id, face_ids, part=part)
    return [written[face_id] for face_id in face_ids]


async def ask_doubles(
    tx: Transaction, deps: PersonsDeps, command: AssignFaces, plan: AssignmentPlan, started_by: str
) -> None:
    """Have people asked about the faces that a machine may not assign only because they would be doubles."""
    pairs = [PairToAsk(face_id, command.person_id, command.confidence_of(face_id)) for face_id in plan.doubles]
    await ask_pairs_later(tx, deps.ids, deps.clock, command.library_id, pairs, started_by)


async def unassign_face(tx: Transaction, deps: PersonsDeps, command: UnassignFace, caller: Caller) -> FaceUnassigned:
    """Take a face from its person.

    Raises :class:`NotFound`, :class:`EtagMismatch`, or :class:`PreconditionFailed` with FACE_NOT_ASSIGNED.
    """
    held, _ = await lock_held(tx, command.library_id, command.face_id)
    if command.etag and command.etag != held.etag:
        raise EtagMismatch("assignment", str(command.face_id), held.etag)
    change = Change(
        ChangeKind.FACES_UNASSIGNED, person_ids=[held.person_id], face_ids=[command.face_id], reason=command.reason
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    if command.exclude:
        made = _new_exclusion(deps, command.face_id, held.person_id, caller)
        await make_exclusions(tx, command.library_id, change_id, [made])
    await _free_face(tx, deps, command.library_id, change_id, command.face_id, caller)
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
        await _free_face(tx, deps, command.library_id, change_id, command.face_id, caller)
    return FaceExcluded(made, change_id)


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


async def _free_face(
    tx: Transaction, deps: PersonsDeps, library_id: str, change_id: UUID, face_id: UUID, caller: Caller
) -> None:
    bereft = await list_exemplified(tx, [face_id])
    await move_faces(tx, deps.clock, library_id, change_id, [Move(face_id, None)])
    await follow_people_later(tx, deps.ids, deps.clock, library_id, bereft, caller.subject)
    await settle_change(tx, deps, library_id, change_id, [face_id])


def _make_hold(standing: FaceStanding, command: AssignFaces) -> Hold:
    held = standing.assignment
    # A human who confirms a machine's assignment says nothing about the face as a prototype.
    choice = held.choice if held is not None and held.person_id == command.person_id else None
    return Hold(command.person_id, command.source, command.confidence_of(standing.face_id), choice)


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
        raise refuse_excluded(standing.face_id, command.person_id)
    if held is not None and (not command.etag or _outranked(held, command.source)):
        raise PreconditionFailed(
            f"face '{face_id}' has a person already",
            reason=Reason.FACE_ALREADY_ASSIGNED,
            metadata={"face_id": face_id, "person_id": str(held.person_id), "etag": held.etag},
        )
    return None


def _outranked(held: Assignment, source: Source) -> bool:
    return held.source is Source.HUMAN and source is Source.MACHINE
