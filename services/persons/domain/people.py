"""Creating and changing people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from services.persons.domain.model import Change, ChangeKind, Person, PersonsDeps, PersonStatus
from services.persons.domain.naming import clean_name, make_name_key
from services.persons.domain.prototyping import refresh_prototypes
from services.persons.repository.changes import record_change
from services.persons.repository.persons import (
    find_same_names,
    get_person,
    has_face,
    insert_person,
    update_person_row,
)
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.errors import EtagMismatch, InvalidRequest, PreconditionFailed, Reason
from shared.faces.eras import PartialDate

MAX_EXTERNAL_IDS = 20
MAX_EXTERNAL_ID = 128
EDITABLE_STATUSES = (PersonStatus.ACTIVE, PersonStatus.HIDDEN)


@dataclass(frozen=True, slots=True)
class CreatePerson:
    """A person to create."""

    library_id: str
    name: str
    status: PersonStatus = PersonStatus.ACTIVE
    birth_date: PartialDate | None = None
    notes: str = ""
    external_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpdatePerson:
    """Fields to change, by their names of the contract; ``etag`` empty = whatever the person is now."""

    library_id: str
    person_id: UUID
    etag: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PersonChanged:
    """The person after a change, others of the same name, and the entry in the ledger (None if nothing changed)."""

    person: Person
    same_name_ids: list[UUID]
    change_id: UUID | None


async def create_person(tx: Transaction, deps: PersonsDeps, command: CreatePerson, caller: Caller) -> PersonChanged:
    """Create a person. Raises :class:`InvalidRequest` naming the field that is wrong."""
    values = _check_values(
        deps,
        {
            "name": command.name,
            "status": command.status,
            "birth_date": command.birth_date,
            "notes": command.notes,
            "external_ids": command.external_ids,
        },
    )
    person_id = deps.ids.new_uuid()
    await insert_person(tx, deps.clock, command.library_id, person_id, _columns(values))
    person = await get_person(tx, command.library_id, person_id)
    change = Change(ChangeKind.PERSON_CREATED, person_ids=[person_id], after=describe_person(person))
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    same = await find_same_names(tx, command.library_id, make_name_key(person.name), person_id)
    return PersonChanged(person, same, change_id)


async def update_person(tx: Transaction, deps: PersonsDeps, command: UpdatePerson, caller: Caller) -> PersonChanged:
    """Change fields of a person.

    Raises :class:`NotFound`, :class:`EtagMismatch`, :class:`PreconditionFailed` for a merged or deleted person, and
    :class:`InvalidRequest` naming the field that is wrong.
    """
    before = await get_person(tx, command.library_id, command.person_id, lock=True)
    if command.etag and command.etag != before.etag:
        raise EtagMismatch("person", str(command.person_id), before.etag)
    refuse_inactive(before)
    values = _check_values(deps, command.values)
    cover = values.get("cover_face_id")
    if cover is not None and not await has_face(tx, command.person_id, cover):
        raise InvalidRequest("person.cover_face_id must be a face of this person", field="person.cover_face_id")
    await update_person_row(tx, deps.clock, command.person_id, _columns(values))
    if "birth_date" in values:
        # Eras follow from it, and with them the prototypes.
        flipped = await refresh_prototypes(tx, deps, command.library_id, [command.person_id])
        await queue_faces(tx, deps.clock, command.library_id, flipped)
    person = await get_person(tx, command.library_id, command.person_id)
    same = await find_same_names(tx, command.library_id, make_name_key(person.name), person.person_id)
    old, new = describe_person(before), describe_person(person)
    if old == new:
        return PersonChanged(person, same, None)
    change = Change(ChangeKind.PERSON_UPDATED, person_ids=[person.person_id], before=old, after=new)
    return PersonChanged(person, same, await record_change(tx, deps, command.library_id, change, caller))


def refuse_inactive(person: Person) -> None:
    """Raise :class:`PreconditionFailed` unless the person can be worked with."""
    if person.status is PersonStatus.MERGED or person.deleted_at is not None:
        status = "DELETED" if person.deleted_at is not None else person.status.value
        raise PreconditionFailed(
            f"person '{person.person_id}' is {status.lower()}",
            reason=Reason.PERSON_NOT_ACTIVE,
            metadata={
                "person_id": str(person.person_id),
                "status": status,
                "merged_into": str(person.merged_into or ""),
            },
        )


def describe_person(person: Person) -> dict[str, Any]:
    """What the ledger keeps of a person: the fields a human may edit."""
    birth = person.birth_date
    return {
        "name": person.name,
        "status": person.status.value,
        "birth_date": {"date": birth.value.isoformat(), "precision": birth.precision.value} if birth else None,
        "cover_face_id": str(person.cover_face_id) if person.cover_face_id else None,
        "notes": person.notes,
        "external_ids": person.external_ids,
    }


def _check_values(deps: PersonsDeps, values: Mapping[str, Any]) -> dict[str, Any]:
    checked = dict(values)
    if "name" in checked:
        checked["name"] = clean_name(checked["name"], deps.settings.max_name_length)
    if "status" in checked and checked["status"] not in EDITABLE_STATUSES:
        raise InvalidRequest("person.status can be set to ACTIVE or HIDDEN only", field="person.status")
    if "notes" in checked and len(checked["notes"].encode()) > deps.settings.max_notes_bytes:
        limit = deps.settings.max_notes_bytes
        raise InvalidRequest(f"person.notes must have at most {limit} bytes", field="person.notes")
    if "external_ids" in checked:
        _check_external_ids(checked["external_ids"])
    return checked


def _check_external_ids(external_ids: Mapping[str, str]) -> None:
    field = "person.external_ids"
    if len(external_ids) > MAX_EXTERNAL_IDS:
        raise InvalidRequest(f"{field} must have at most {MAX_EXTERNAL_IDS} entries", field=field)
    for key, value in external_ids.items():
        if not (0 < len(key) <= MAX_EXTERNAL_ID and 0 < len(value) <= MAX_EXTERNAL_ID):
            raise InvalidRequest(f"{field}: keys and values have 1..{MAX_EXTERNAL_ID} characters", field=field)


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in values.items():
        if name == "name":
            columns |= {"name": value, "name_key": make_name_key(value)}
        elif name == "status":
            columns["status"] = value.value
        elif name == "birth_date":
            columns |= birth_columns(value)
        elif name == "cover_face_id":
            # None hands the choice back to the machine.
            columns |= {"cover_face_id": value, "cover_by_hand": value is not None}
        elif name == "external_ids":
            columns["external_ids"] = dict(value)
        else:
            columns[name] = value
    return columns


def birth_columns(birth: PartialDate | None) -> dict[str, int | None]:
    """A birth date as its three columns; parts that are not known are NULL."""
    if birth is None:
        return {"birth_year": None, "birth_month": None, "birth_day": None}
    known = birth.precision.value
    return {
        "birth_year": birth.value.year,
        "birth_month": birth.value.month if known in {"MONTH", "DAY"} else None,
        "birth_day": birth.value.day if known == "DAY" else None,
    }
