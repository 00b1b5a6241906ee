"""A person's faces photo by photo: taken from them, or given to another, who may be new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.persons.domain.doubles import refuse_unknown_photos
from services.persons.domain.fields import Fields, describe_creation, name_columns
from services.persons.domain.model import Change, ChangeKind, FaceStanding, Hold, Move, Person, PersonsDeps, Source
from services.persons.domain.naming import clean_name, make_name_key
from services.persons.domain.people import refuse_inactive
from services.persons.domain.rules import refuse_excluded
from services.persons.domain.settling import settle_change
from services.persons.repository.assignments import list_faces_in_photos, lock_standings
from services.persons.repository.changes import record_change
from services.persons.repository.moves import move_faces
from services.persons.repository.persons import find_named, insert_person, lock_name
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import Contention, InvalidRequest, NotFound
from shared.jobs.asking import follow_people_later
from shared.jobs.model import ItemFailure


@dataclass(frozen=True, slots=True)
class RemovePhotos:
    """Photos in which a person is not."""

    library_id: str
    person_id: UUID
    asset_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class PhotosRemoved:
    """How many faces became nobody's, and the change (None if none did)."""

    faces_unassigned: int
    change_id: UUID | None


@dataclass(frozen=True, slots=True)
class MovePhotos:
    """Photos in which a person is another: ``target_id``, or if None whoever is named ``target_name``."""

    library_id: str
    person_id: UUID
    asset_ids: Sequence[str]
    target_id: UUID | None
    target_name: str


@dataclass(frozen=True, slots=True)
class PhotosMoved:
    """Who has the faces now (None if nothing was moved and nobody had the name), and which stayed."""

    target_id: UUID | None
    target_created: bool
    faces_moved: int
    failures: list[ItemFailure]
    change_id: UUID | None


async def remove_photos(tx: Transaction, deps: PersonsDeps, command: RemovePhotos, caller: Caller) -> PhotosRemoved:
    """Make the person's faces in these photos nobody's.

    A fixed number of statements, whatever the number of photos and faces. Raises :class:`NotFound` for the person, or naming
    every photo that is not registered, and :class:`PreconditionFailed` for a merged or deleted person.
    """
    held, _ = await _lock_held(tx, command.library_id, command.person_id, command.asset_ids, None)
    if not held:
        return PhotosRemoved(0, None)
    moves = [Move(standing.face_id, None) for standing in held]
    change = Change(
        ChangeKind.FACES_UNASSIGNED,
        person_ids=[command.person_id],
        face_ids=[move.face_id for move in moves],
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    await _move(tx, deps, command.library_id, command.person_id, change_id, moves, caller)
    return PhotosRemoved(len(moves), change_id)


async def move_photos(tx: Transaction, deps: PersonsDeps, command: MovePhotos, caller: Caller) -> PhotosMoved:
    """Give the person's faces in these photos to another, as a human's word; one that is excluded from them stays.

    Of several persons by the name it is the one with the most faces; if there is none and faces are to go, one is created, as a
    part of the same change. A fixed number of statements. Raises as :func:`remove_photos` does, for the target too, and
    :class:`InvalidRequest` for a name that is none, or a target that is the person itself.
    """
    target_id, name = command.target_id, ""
    if target_id is None:
        name = clean_name(command.target_name, deps.settings.max_name_length, "target_person_name")
        # Until the commit nobody else looks for the name: of two calls that miss it one creates the person.
        await lock_name(tx, command.library_id, make_name_key(name))
        target_id = await find_named(tx, command.library_id, make_name_key(name))
    if target_id == command.person_id:
        raise _itself(command)
    held, target = await _lock_held(tx, command.library_id, command.person_id, command.asset_ids, target_id)
    if target_id is not None:
        _check_target(command, target_id, target, make_name_key(name))
    going = [standing for standing in held if not standing.excluded]
    failures = [_stay(standing, target_id) for standing in held if standing.excluded and target_id is not None]
    if not going:
        return PhotosMoved(target_id, False, 0, failures, None)
    before: Fields = {}
    after: Fields = {}
    created = target_id is None
    if target_id is None:
        target_id = deps.ids.new_uuid()
        made = await insert_person(tx, deps.clock, command.library_id, target_id, name_columns(name))
        before, after = describe_creation(made)
    change = Change(
        ChangeKind.FACES_ASSIGNED,
        person_ids=[command.person_id, target_id],
        face_ids=[standing.face_id for standing in going],
        before=before,
        after=after,
    )
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    moves = [Move(standing.face_id, Hold(target_id, Source.HUMAN, 1.0)) for standing in going]
    await _move(tx, deps, command.library_id, command.person_id, change_id, moves, caller)
    return PhotosMoved(target_id, created, len(moves), failures, change_id)


async def _lock_held(
    tx: Transaction, library_id: str, person_id: UUID, asset_ids: Sequence[str], target_id: UUID | None
) -> tuple[list[FaceStanding], Person | None]:
    """The person's faces in these photos, locked, and the target, if it exists."""
    found = await list_faces_in_photos(tx, library_id, person_id, asset_ids)
    refuse_unknown_photos(asset_ids, set(found))
    face_ids = [face_id for in_photo in found.values() for face_id in in_photo]
    wanted = [person_id] if target_id is None else [person_id, target_id]
    standings, people = await lock_standings(tx, library_id, face_ids, wanted, target=target_id)
    person = people.get(person_id)
    if person is None:
        raise NotFound("person", str(person_id))
    refuse_inactive(person)
    held = [
        standing
        for standing in standings.values()
        # Another call may have moved some of them while we waited.
        if standing.assignment is not None and standing.assignment.person_id == person_id
    ]
    return sorted(held, key=lambda standing: standing.face_id), people.get(target_id) if target_id else None


async def _move(
    tx: Transaction,
    deps: PersonsDeps,
    library_id: str,
    person_id: UUID,
    change_id: UUID,
    moves: Sequence[Move],
    caller: Caller,
) -> None:
    await move_faces(tx, deps.clock, library_id, change_id, moves)
    # Questions may rest on faces that are not the person's any more.
    await follow_people_later(tx, deps.ids, deps.clock, library_id, [person_id], caller.subject)
    await settle_change(tx, deps, library_id, change_id, [move.face_id for move in moves])


def _check_target(command: MovePhotos, target_id: UUID, target: Person | None, name_key: str) -> None:
    if target is None:
        raise NotFound("person", str(target_id))
    if command.target_id is None:
        gone = target.merged_into is not None or target.deleted_at is not None
        if gone or make_name_key(target.name) != name_key:
            raise Contention(f"person '{target_id}' was changed while this call looked for the name: try again")
    refuse_inactive(target)


def _stay(standing: FaceStanding, target_id: UUID) -> ItemFailure:
    error = refuse_excluded(standing.face_id, target_id)
    return ItemFailure(str(standing.face_id), error.reason.value, error.message)


def _itself(command: MovePhotos) -> InvalidRequest:
    if command.target_id is not None:
        return InvalidRequest("the photos are this person's already", field="target_person_id")
    return InvalidRequest(
        f"'{command.target_name}' is this person's own name: say whom of that name you mean with target_person_id",
        field="target_person_name",
    )
