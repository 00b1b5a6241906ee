"""Two persons are one: the merged one's faces, prototypes, exclusions and questions become the survivor's.

Where what humans said of the two does not fit together, the later and larger word is the merge. A face that a human gave to one
of them and excluded from the other stays with them, and the exclusion goes. A face that a machine gave to one of them, though a
human had excluded it from the other, becomes nobody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.persons.domain.fields import Fields, compare_fields, describe_birth, describe_person, tell_persons
from services.persons.domain.model import (
    Change,
    ChangeKind,
    Move,
    Person,
    PersonsDeps,
    PersonStatus,
    Source,
)
from services.persons.domain.people import check_etag, decides_derived, refuse_inactive, write_fields
from services.persons.domain.settling import settle_change
from services.persons.repository.changes import fill_change, record_change
from services.persons.repository.exclusions import move_exclusions
from services.persons.repository.merging import count_following, list_contradictions, list_links
from services.persons.repository.moves import move_faces, move_held
from services.persons.repository.persons import get_person, lock_persons
from services.persons.repository.prototypes import PinnedFace, list_pinned
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import Contention, InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.faces.eras import PartialDate, find_era
from shared.jobs.asking import follow_people_later


@dataclass(frozen=True, slots=True)
class MergePersons:
    """Who stays and who becomes part of them, with their etags. ``birth_date`` decides where theirs differ."""

    library_id: str
    survivor_id: UUID
    survivor_etag: str
    merged_id: UUID
    merged_etag: str
    birth_date: PartialDate | None = None


@dataclass(frozen=True, slots=True)
class PersonsMerged:
    """The survivor as it is now, and what came to it."""

    survivor: Person
    faces_moved: int
    faces_unassigned: int
    prototypes_moved: int
    exclusions_moved: int
    suggestions_moved: int
    change_id: UUID


async def merge_persons(tx: Transaction, deps: PersonsDeps, command: MergePersons, caller: Caller) -> PersonsMerged:
    """Merge two persons, in a fixed number of statements whatever the number of their faces.

    A survivor who is merged already stands for whom they are part of. Raises :class:`NotFound`, :class:`EtagMismatch`,
    :class:`InvalidRequest` for a person into itself, and :class:`PreconditionFailed` with ETAG_REQUIRED, PERSON_NOT_ACTIVE
    or BIRTH_DATES_DIFFER.
    """
    survivor, merged = await _lock_both(tx, command)
    birth = _decide_birth(command, survivor, merged)
    contradictions = await list_contradictions(tx, survivor.person_id, merged.person_id)
    pins = await list_pinned(tx, [survivor.person_id, merged.person_id])
    prototypes, questions = await count_following(tx, merged.person_id)
    fields: dict[UUID, Fields] = {
        survivor.person_id: {"birth_date": describe_birth(birth)},
        merged.person_id: {"status": PersonStatus.MERGED.value, "merged_into": str(survivor.person_id)},
    }
    compared = {
        person.person_id: compare_fields(describe_person(person), fields[person.person_id])
        for person in (survivor, merged)
    }
    change = Change(
        ChangeKind.PERSONS_MERGED,
        person_ids=list(fields),
        before=tell_persons({person_id: before for person_id, (before, _) in compared.items()}),
        after=tell_persons({person_id: after for person_id, (_, after) in compared.items()}),
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    certain = [face.face_id for face in contradictions if face.source is Source.HUMAN]
    exclusions = await move_exclusions(tx, change_id, merged.person_id, survivor.person_id, certain)
    freed = {face.face_id: face.held_by for face in contradictions if face.source is Source.MACHINE}
    face_ids = await move_held(
        tx,
        deps.clock,
        change_id,
        merged.person_id,
        survivor.person_id,
        freed=freed,
        unpinned=_find_crowded(survivor, pins, birth),
    )
    given_up = [face_id for face_id, holder in freed.items() if holder == survivor.person_id]
    await move_faces(tx, deps.clock, command.library_id, change_id, [Move(face_id, None) for face_id in given_up])
    face_ids += given_up
    await fill_change(tx, change_id, face_ids)
    for person_id, (_, after) in compared.items():
        # The survivor's etag changes in any case: whoever read it before knows another person.
        await write_fields(tx, deps, person_id, after)
    await follow_people_later(tx, deps.ids, deps.clock, command.library_id, list(fields), caller.subject)
    touched = [person_id for person_id, (_, after) in compared.items() if decides_derived(after)]
    await settle_change(tx, deps, command.library_id, change_id, face_ids, touched)
    return PersonsMerged(
        survivor=await get_person(tx, command.library_id, survivor.person_id),
        faces_moved=len(face_ids) - len(freed),
        faces_unassigned=len(freed),
        prototypes_moved=prototypes,
        exclusions_moved=exclusions,
        suggestions_moved=questions,
        change_id=change_id,
    )


async def _lock_both(tx: Transaction, command: MergePersons) -> tuple[Person, Person]:
    if command.survivor_id == command.merged_id:
        raise InvalidRequest("a person cannot be merged into itself", field="merged_id")
    named = {command.survivor_id, command.merged_id}
    links = await list_links(tx, named)
    end = command.survivor_id
    while (onward := links.get(end)) is not None:
        end = onward
    people = await lock_persons(tx, command.library_id, {*named, end})
    for person_id in (command.survivor_id, command.merged_id):
        if person_id not in people:
            raise NotFound("person", str(person_id))
    check_etag(people[command.survivor_id], command.survivor_etag, required="survivor_etag")
    check_etag(people[command.merged_id], command.merged_etag, required="merged_etag")
    merged, survivor = people[command.merged_id], people[end]
    if end == command.merged_id:
        raise InvalidRequest(
            f"person '{command.survivor_id}' is part of '{command.merged_id}' already", field="survivor_id"
        )
    refuse_inactive(merged)
    if survivor.status is PersonStatus.MERGED:
        # It was the end of the chain until a moment ago.
        raise Contention(f"person '{end}' is being merged by another call: try again")
    refuse_inactive(survivor)
    return survivor, merged


def _decide_birth(command: MergePersons, survivor: Person, merged: Person) -> PartialDate | None:
    """The birth date of both: the one that is known, the more precise of two that fit, else the call's word."""
    one, other = survivor.birth_date, merged.birth_date
    if command.birth_date is not None:
        return command.birth_date
    if one is None or other is None:
        return one or other
    if other.earliest <= one.earliest and one.latest <= other.latest:
        return one
    if one.earliest <= other.earliest and other.latest <= one.latest:
        return other
    raise PreconditionFailed(
        f"the two have different birth dates, {_tell(one)} and {_tell(other)}: say which is right with birth_date",
        reason=Reason.BIRTH_DATES_DIFFER,
        metadata={"survivor_birth_date": _tell(one), "merged_birth_date": _tell(other)},
    )


def _tell(birth: PartialDate) -> str:
    return birth.value.isoformat()[: {"YEAR": 4, "MONTH": 7, "DAY": 10}[birth.precision.value]]


def _find_crowded(survivor: Person, pins: list[PinnedFace], birth: PartialDate | None) -> set[UUID]:
    """Pins of the merged person in eras in which the survivor has one: one pin per era."""
    taken = {find_era(birth, pin.captured) for pin in pins if pin.person_id == survivor.person_id}
    return {
        pin.face_id for pin in pins if pin.person_id != survivor.person_id and find_era(birth, pin.captured) in taken
    }
