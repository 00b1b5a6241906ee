"""What people of a library are, as plain values: read from the store, checked on their own, and moved by the ledger's rules.

Nothing here knows how the ledger does it. The rules are those of the contract: what a merge makes of two persons, and whom a
face may go to; what may differ after an undo is in :mod:`tests.integration.persons.ledger_reversal`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from shared.db.engine import Transaction
from shared.db.tables_persons import allowed_doubles, assignments, changes, exclusions, persons, prototypes
from shared.errors import Reason
from shared.faces.eras import PartialDate, find_era, is_before_birth, make_partial_date

ACTIVE = ("ACTIVE", None)
Pair = tuple[UUID, UUID]


@dataclass(frozen=True, slots=True)
class Person:
    """``standing``: the status and whom the person is part of, which are one value."""

    name: str = ""
    birth: PartialDate | None = None
    standing: tuple[str, UUID | None] = ACTIVE
    deleted: bool = True

    @property
    def living(self) -> bool:
        return not self.deleted and self.standing[1] is None


NOBODY = Person()
"""Who was not created yet, or whose creation was undone, as far as an undo is concerned."""


@dataclass(frozen=True, slots=True)
class Held:
    """A face's person, who said so, and a human's word on it as a prototype."""

    person: UUID
    source: str
    choice: str | None = None


@dataclass(slots=True)
class State:
    """All that the ledger keeps. ``excluded``: exclusion ids by face and person; ``doubles``: photos."""

    people: dict[UUID, Person] = field(default_factory=dict)
    faces: dict[UUID, Held] = field(default_factory=dict)
    excluded: dict[Pair, UUID] = field(default_factory=dict)
    doubles: set[str] = field(default_factory=set)

    def copy(self) -> State:
        return State(dict(self.people), dict(self.faces), dict(self.excluded), set(self.doubles))

    def holders(self) -> Counter[UUID]:
        return Counter(held.person for held in self.faces.values())

    def resolve(self, person: UUID) -> UUID:
        """Whom a person is part of; a cycle is an error."""
        seen: set[UUID] = set()
        while (into := self.people[person].standing[1]) is not None:
            assert person not in seen, f"{person} is part of itself"
            seen.add(person)
            person = into
        return person


@dataclass(frozen=True, slots=True)
class Derived:
    """What follows from the state, what else an assignment has, and which changes are undone.

    ``terms``: how sure an assignment is, and since when it is one.
    """

    counts: Mapping[UUID, int]
    prototypes: Mapping[UUID, tuple[UUID, str, bool]]
    versions: Mapping[UUID, int]
    terms: Mapping[UUID, tuple[float, datetime]]
    undone: Mapping[UUID, bool]


@dataclass(frozen=True, slots=True)
class Photo:
    """A face's photo."""

    asset_id: str
    captured: PartialDate


async def read_state(tx: Transaction, library_id: str) -> tuple[State, Derived]:
    """What is stored of a library."""
    state = State()
    counts, versions, terms = {}, {}, {}
    for row in await tx.rows(select(persons).where(persons.c.library_id == library_id)):
        birth = make_partial_date(row.birth_year, row.birth_month, row.birth_day)
        standing = (row.status, row.merged_into)
        state.people[row.person_id] = Person(row.name, birth, standing, row.deleted_at is not None)
        counts[row.person_id] = row.face_count
    for row in await tx.rows(select(assignments).where(assignments.c.library_id == library_id)):
        state.faces[row.face_id] = Held(row.person_id, row.source, row.choice)
        versions[row.face_id] = row.version
        terms[row.face_id] = (row.confidence, row.assigned_at)
    for row in await tx.rows(select(exclusions).where(exclusions.c.library_id == library_id)):
        state.excluded[row.face_id, row.person_id] = row.exclusion_id
    for row in await tx.rows(select(allowed_doubles).where(allowed_doubles.c.library_id == library_id)):
        state.doubles.add(row.asset_id)
    shown = await tx.rows(select(prototypes).where(prototypes.c.library_id == library_id))
    entries = await tx.rows(select(changes.c.change_id, changes.c.undone_by).where(changes.c.library_id == library_id))
    return state, Derived(
        counts,
        {row.face_id: (row.person_id, row.role, row.pinned) for row in shown},
        versions,
        terms,
        {row.change_id: row.undone_by is not None for row in entries},
    )


def check_invariants(state: State, derived: Derived) -> None:
    """What is true of every library at any time."""
    for person_id, person in state.people.items():
        status, into = person.standing
        assert (status == "MERGED") is (into is not None), "who is merged is part of somebody, and nobody else is"
        state.resolve(person_id)
    for face_id, held in state.faces.items():
        assert state.people[held.person].living, "only who is there has faces"
        assert (face_id, held.person) not in state.excluded, "a face is not at once somebody's and not theirs"
    for _, person_id in state.excluded:
        assert state.people[person_id].standing[0] != "MERGED", "exclusions follow a merge"
    holders = state.holders()
    assert dict(derived.counts) == {person_id: holders[person_id] for person_id in state.people}
    for face_id, (person_id, _, pinned) in derived.prototypes.items():
        held = state.faces[face_id]
        assert held.person == person_id, "a prototype is a face of its person"
        assert held.choice != "REFUSED"
        assert not pinned or held.choice == "PINNED"
    pins = {face_id for face_id, held in state.faces.items() if held.choice == "PINNED"}
    assert pins <= derived.prototypes.keys()


def find_refusal(
    state: State, photos: Mapping[UUID, Photo], face_ids: Sequence[UUID], person_id: UUID, source: str
) -> tuple[dict[UUID, Reason], list[UUID]]:
    """Why which of these faces cannot be given to a living person, and which are to be written; in order."""
    refused: dict[UUID, Reason] = {}
    going: list[UUID] = []
    theirs: set[str] = set()
    for face_id in face_ids:
        held, photo = state.faces.get(face_id), photos[face_id]
        others = {
            photos[other].asset_id for other, it in state.faces.items() if it.person == person_id and other != face_id
        }
        if held is not None and held.person == person_id:
            if (held.source, source) == ("MACHINE", "HUMAN"):
                going.append(face_id)
        elif (face_id, person_id) in state.excluded:
            refused[face_id] = Reason.FACE_EXCLUDED
        elif held is not None:
            refused[face_id] = Reason.FACE_ALREADY_ASSIGNED
        elif source == "MACHINE" and is_before_birth(state.people[person_id].birth, photo.captured):
            refused[face_id] = Reason.BEFORE_BIRTH
        elif source == "MACHINE" and photo.asset_id in others | theirs and photo.asset_id not in state.doubles:
            refused[face_id] = Reason.SAME_PHOTO_DOUBLE
        else:
            going.append(face_id)
            theirs.add(photo.asset_id)
    return refused, going


def find_birth(one: PartialDate | None, other: PartialDate | None) -> tuple[PartialDate | None, Reason | None]:
    """The birth date of two who are one: the known one, or the more precise; two that do not fit are refused."""
    if one is None or other is None:
        return one or other, None
    for inner, outer in ((one, other), (other, one)):
        if outer.earliest <= inner.earliest and inner.latest <= outer.latest:
            return inner, None
    return None, Reason.BIRTH_DATES_DIFFER


def merge(state: State, photos: Mapping[UUID, Photo], survivor: UUID, merged: UUID) -> State:
    """Two persons as one. What a human said of a face goes before an exclusion, and that before what a machine said."""
    both = (survivor, merged)
    made = State(dict(state.people), {}, {}, set(state.doubles))
    birth, _ = find_birth(state.people[survivor].birth, state.people[merged].birth)
    made.people[survivor] = replace(state.people[survivor], birth=birth)
    made.people[merged] = replace(state.people[merged], standing=("MERGED", survivor))
    pinned = {find_era(birth, photos[face_id].captured) for face_id in list_pins(state, survivor)}
    for face_id, held in state.faces.items():
        other = merged if held.person == survivor else survivor
        if held.person in both and held.source == "MACHINE" and (face_id, other) in state.excluded:
            continue
        crowded = (
            held.person == merged and held.choice == "PINNED" and find_era(birth, photos[face_id].captured) in pinned
        )
        choice = "CHOSEN" if crowded else held.choice
        made.faces[face_id] = Held(survivor, held.source, choice) if held.person in both else held
    for (face_id, person_id), exclusion_id in state.excluded.items():
        keeper = made.faces.get(face_id)
        if person_id not in both:
            made.excluded[face_id, person_id] = exclusion_id
        elif keeper is None or keeper.person != survivor:
            # Of two exclusions of one face the survivor's stands.
            made.excluded[face_id, survivor] = state.excluded.get((face_id, survivor), exclusion_id)
    return made


def list_pins(state: State, person_id: UUID) -> list[UUID]:
    """The faces pinned as prototypes of a person."""
    return [face_id for face_id, held in state.faces.items() if held.person == person_id and held.choice == "PINNED"]


def find_named(state: State, name: str) -> UUID | None:
    """The living person of a name, of several the one with the most faces."""
    holders = state.holders()
    named = [person_id for person_id, person in state.people.items() if person.living and person.name == name]
    return min(named, key=lambda person_id: (-holders[person_id], person_id), default=None)
