"""A human's word on faces as prototypes, and what a person is known by in each era.

A word is part of the face's assignment, so it goes where the face goes and is undone with everything else. What follows from
it is settled at once, however many faces the person has: a human waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from services.persons.domain.model import (
    Assignment,
    Change,
    ChangeKind,
    EraCoverage,
    Move,
    Person,
    PersonsDeps,
    Prototype,
)
from services.persons.domain.people import refuse_inactive
from services.persons.domain.prototyping import refresh_prototypes
from services.persons.repository.assignments import lock_held
from services.persons.repository.changes import record_change
from services.persons.repository.moves import list_held_of, move_faces
from services.persons.repository.persons import get_person
from services.persons.repository.prototypes import count_eras, list_pinned, list_prototypes
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.faces.eras import find_era
from shared.faces.prototypes import Choice


@dataclass(frozen=True, slots=True)
class ChoosePrototype:
    """A word on an assigned face; ``choice`` None takes a pin back."""

    library_id: str
    face_id: UUID
    choice: Choice | None


@dataclass(frozen=True, slots=True)
class PrototypeChosen:
    """The face as a prototype (None if it is none now), and the change (None if nothing changed)."""

    prototype: Prototype | None
    change_id: UUID | None


async def choose_prototype(
    tx: Transaction, deps: PersonsDeps, command: ChoosePrototype, caller: Caller
) -> PrototypeChosen:
    """Say of a face that it is the prototype of its era, one of its person's, or never one; or take a pin back.

    A pin takes the place of others of its era, of which nothing is said then; to choose a pinned face leaves it pinned.
    Raises :class:`NotFound`, and :class:`PreconditionFailed` with FACE_NOT_ASSIGNED or PERSON_NOT_ACTIVE.
    """
    held, person = await lock_held(tx, command.library_id, command.face_id)
    refuse_inactive(person)
    moves = []
    if not _is_said(held.choice, command.choice):
        moves.append(_say(held, command.choice))
    if command.choice is Choice.PINNED:
        moves += await _unpin_others(tx, held, person)
    change_id = None
    if moves:
        face_ids = [move.face_id for move in moves]
        change = Change(ChangeKind.PROTOTYPES_CHANGED, person_ids=[person.person_id], face_ids=face_ids)
        change_id = await record_change(tx, deps, command.library_id, change, caller)
        # The others' faces are not locked, but their person is.
        await move_faces(tx, deps.clock, command.library_id, change_id, moves)
        await _refresh(tx, deps, command.library_id, person)
    prototypes = await list_prototypes(tx, [person.person_id])
    return PrototypeChosen(next((row for row in prototypes if row.face_id == command.face_id), None), change_id)


async def recompute_prototypes(tx: Transaction, deps: PersonsDeps, library_id: str, person_id: UUID) -> list[Prototype]:
    """Choose a person's prototypes anew; nothing a human decided changes, so the ledger has no entry of it.

    Raises :class:`NotFound`, and :class:`PreconditionFailed` with PERSON_NOT_ACTIVE.
    """
    person = await get_person(tx, library_id, person_id, lock=True)
    refuse_inactive(person)
    await _refresh(tx, deps, library_id, person)
    return await list_prototypes(tx, [person_id])


async def cover_eras(tx: Transaction, library_id: str, person_id: UUID) -> list[EraCoverage]:
    """How many faces and prototypes a person has in each era: every era once, then those of unknown date.

    Raises :class:`NotFound`.
    """
    person = await get_person(tx, library_id, person_id)
    return await count_eras(tx, person_id, person.birth_date)


def _is_said(present: Choice | None, wanted: Choice | None) -> bool:
    if wanted is None:
        return present is not Choice.PINNED
    return present is wanted or (wanted is Choice.CHOSEN and present is Choice.PINNED)


def _say(held: Assignment, choice: Choice | None) -> Move:
    return Move(held.face_id, replace(held.hold, choice=choice))


async def _unpin_others(tx: Transaction, held: Assignment, person: Person) -> list[Move]:
    pins = await list_pinned(tx, [person.person_id], also=[held.face_id])
    eras = {pin.face_id: find_era(person.birth_date, pin.captured) for pin in pins}
    others = [face_id for face_id, era in eras.items() if face_id != held.face_id and era is eras[held.face_id]]
    return [_say(other, None) for other in await list_held_of(tx, person.person_id, others)] if others else []


async def _refresh(tx: Transaction, deps: PersonsDeps, library_id: str, person: Person) -> None:
    flipped = await refresh_prototypes(tx, deps, library_id, [person.person_id])
    await queue_faces(tx, deps.clock, library_id, flipped)
