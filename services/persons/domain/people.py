"""Creating and changing people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from services.persons.domain.fields import (
    Fields,
    compare_fields,
    describe_birth,
    describe_creation,
    describe_person,
    make_columns,
    tell_persons,
)
from services.persons.domain.model import Change, ChangeKind, Person, PersonsDeps, PersonStatus
from services.persons.domain.naming import clean_name, make_name_key
from services.persons.domain.settling import settle_people
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
    columns = make_columns(_to_fields(values), deps.clock)
    person = await insert_person(tx, deps.clock, command.library_id, person_id, columns)
    before, after = describe_creation(person)
    change = Change(ChangeKind.PERSON_CREATED, person_ids=[person_id], before=before, after=after)
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    same = await find_same_names(tx, command.library_id, make_name_key(person.name), person_id)
    return PersonChanged(person, same, change_id)


async def update_person(tx: Transaction, deps: PersonsDeps, command: UpdatePerson, caller: Caller) -> PersonChanged:
    """Change fields of a person.

    Raises :class:`NotFound`, :class:`EtagMismatch`, :class:`PreconditionFailed` for a merged or deleted person, and
    :class:`InvalidRequest` naming the field that is wrong.
    """
    person = await get_person(tx, command.library_id, command.person_id, lock=True)
    check_etag(person, command.etag)
    refuse_inactive(person)
    values = _check_values(deps, command.values)
    cover = values.get("cover_face_id")
    if cover is not None and not await has_face(tx, command.person_id, cover):
        raise InvalidRequest("person.cover_face_id must be a face of this person", field="person.cover_face_id")
    before, after = compare_fields(describe_person(person), _to_fields(values))
    change_id = None
    if after:
        change = Change(
            ChangeKind.PERSON_UPDATED,
            person_ids=[person.person_id],
            before=tell_persons({person.person_id: before}),
            after=tell_persons({person.person_id: after}),
        )
        change_id = await record_change(tx, deps, command.library_id, change, caller)
        person = await write_fields(tx, deps, person.person_id, after)
        if decides_derived(after):
            await settle_people(tx, deps, command.library_id, [person.person_id])
            person = await get_person(tx, command.library_id, person.person_id)
    same = await find_same_names(tx, command.library_id, make_name_key(person.name), person.person_id)
    return PersonChanged(person, same, change_id)


async def write_fields(tx: Transaction, deps: PersonsDeps, person_id: UUID, fields: Fields) -> Person:
    """Give a locked person fields of the ledger; answers with the person. What follows from them is settled by the caller,
    once it has moved what faces it moves.
    """
    return await update_person_row(tx, deps.clock, person_id, make_columns(fields, deps.clock))


def decides_derived(fields: Fields) -> bool:
    """Whether something derived depends on one of these fields: eras and so prototypes on the birth date, and the cover."""
    return bool(fields.keys() & {"birth_date", "cover_face_id"})


def check_etag(person: Person, etag: str, *, required: str | None = None) -> None:
    """Raise :class:`EtagMismatch` for a stale etag, and, where it is ``required`` (the field's name), for none at all
    :class:`PreconditionFailed` with ETAG_REQUIRED.
    """
    if required is not None and not etag:
        raise PreconditionFailed(
            f"{required} is required: read the person first",
            reason=Reason.ETAG_REQUIRED,
            metadata={"resource": "person", "id": str(person.person_id)},
        )
    if etag and etag != person.etag:
        raise EtagMismatch("person", str(person.person_id), person.etag)


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


def _to_fields(values: Mapping[str, Any]) -> Fields:
    """Fields of the contract, in the domain's types, as the ledger keeps them."""
    fields: Fields = {}
    for name, value in values.items():
        if name == "birth_date":
            fields[name] = describe_birth(value)
        elif name == "status":
            fields[name] = value.value
        elif name == "cover_face_id":
            fields[name] = str(value) if value else None
        elif name == "external_ids":
            fields[name] = dict(value)
        else:
            fields[name] = value
    return fields
