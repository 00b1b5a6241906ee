"""Deleting a person softly, and taking that back.

A deleted person holds no face: the faces are free to be grouped and suggested again. The change remembers them, so that
undeleting gives back those that are still free; it is the undoing of the deletion under another name.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.persons.domain.fields import tell_persons
from services.persons.domain.model import Change, ChangeKind, Person, PersonsDeps
from services.persons.domain.people import check_etag, refuse_inactive, write_fields
from services.persons.domain.settling import settle_change
from services.persons.domain.undoing import Undo, undo_change
from services.persons.repository.changes import fill_change, find_deletion, record_change
from services.persons.repository.moves import move_held
from services.persons.repository.persons import get_person
from services.persons.repository.receipts import find_receipts
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import AlreadyExists, PreconditionFailed, Reason
from shared.jobs.asking import follow_people_later


@dataclass(frozen=True, slots=True)
class DeletePerson:
    """A person to put away, with the etag."""

    library_id: str
    person_id: UUID
    etag: str


@dataclass(frozen=True, slots=True)
class UndeletePerson:
    """A person to bring back."""

    library_id: str
    person_id: UUID


@dataclass(frozen=True, slots=True)
class PersonPutAway:
    """The person as it is now, and the change."""

    person: Person
    change_id: UUID


async def delete_person(tx: Transaction, deps: PersonsDeps, command: DeletePerson, caller: Caller) -> PersonPutAway:
    """Put a person away; its faces become nobody's.

    Raises :class:`NotFound`, :class:`EtagMismatch`, and :class:`PreconditionFailed` with ETAG_REQUIRED or PERSON_NOT_ACTIVE.
    """
    person = await get_person(tx, command.library_id, command.person_id, lock=True)
    check_etag(person, command.etag, required="etag")
    refuse_inactive(person)
    change = Change(
        ChangeKind.PERSON_DELETED,
        person_ids=[person.person_id],
        before=tell_persons({person.person_id: {"deleted": False}}),
        after=tell_persons({person.person_id: {"deleted": True}}),
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    face_ids = await move_held(tx, deps.clock, change_id, person.person_id, None)
    await fill_change(tx, change_id, face_ids)
    await write_fields(tx, deps, person.person_id, {"deleted": True})
    await follow_people_later(tx, deps.ids, deps.clock, command.library_id, [person.person_id], caller.subject)
    await settle_change(tx, deps, command.library_id, change_id, face_ids)
    return PersonPutAway(await get_person(tx, command.library_id, person.person_id), change_id)


async def undelete_person(tx: Transaction, deps: PersonsDeps, command: UndeletePerson, caller: Caller) -> PersonPutAway:
    """Bring a person back, with those of its faces that are still nobody's.

    Raises :class:`NotFound`, :class:`AlreadyExists` for a person that is not deleted, and :class:`PreconditionFailed` with
    PERSON_NOT_ACTIVE for one that is being forgotten.
    """
    person = await get_person(tx, command.library_id, command.person_id)
    if person.deleted_at is None:
        raise _refuse_present(person.person_id)
    deletion = await find_deletion(tx, command.library_id, command.person_id)
    if deletion is None or await find_receipts(tx, [person.person_id]):
        raise PreconditionFailed(
            f"person '{person.person_id}' is being forgotten",
            reason=Reason.PERSON_NOT_ACTIVE,
            metadata={"person_id": str(person.person_id), "status": "FORGOTTEN", "merged_into": ""},
        )
    undo = Undo(command.library_id, deletion, kind=ChangeKind.PERSON_UNDELETED)
    undone = await undo_change(tx, deps, undo, caller)
    if undone.change_id is None:
        # Another call has brought it back while this one waited.
        raise _refuse_present(person.person_id)
    return PersonPutAway(await get_person(tx, command.library_id, person.person_id), undone.change_id)


def _refuse_present(person_id: UUID) -> AlreadyExists:
    return AlreadyExists(f"person '{person_id}' is not deleted", metadata={"resource": "person", "id": str(person_id)})
