"""What humans have refused, as plain values: which faces are not which persons, and what each change did to that.

Nothing here knows how the ledger does it. A pair is refused until the exclusion is taken back or the change that made it is
undone; whoever becomes part of another takes their exclusions along, and has them back when that is undone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

Pair = tuple[UUID, UUID]
Excluded = dict[Pair, UUID]
NEW: Final = UUID(int=0)
"""The id of an exclusion that was not there before."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is stored of a library and bears on exclusions. ``excluded``: exclusion ids by (face, person); ``held``: (person,
    source) by face; ``parts``: whom a merged person is part of; ``aside``: faces that are not ACTIVE.
    """

    excluded: Excluded = field(default_factory=dict)
    held: Mapping[UUID, tuple[UUID, str]] = field(default_factory=dict)
    parts: Mapping[UUID, UUID] = field(default_factory=dict)
    deleted: Collection[UUID] = ()
    aside: Collection[UUID] = ()

    def resolve(self, person_id: UUID) -> UUID:
        """Whom a person is part of; a cycle is an error."""
        seen: set[UUID] = set()
        while person_id in self.parts:
            assert person_id not in seen, f"{person_id} is part of itself"
            seen.add(person_id)
            person_id = self.parts[person_id]
        return person_id

    def lives(self, person_id: UUID) -> bool:
        """Whether somebody is there, and nobody's part."""
        return person_id not in self.parts and person_id not in self.deleted


@dataclass(frozen=True, slots=True)
class Entry:
    """A change of the ledger by its number in it, and which exclusions it ``made`` and which are ``gone`` by it."""

    change_id: str
    kind: str
    made: Mapping[Pair, UUID]
    gone: Mapping[Pair, UUID]

    @property
    def refuses(self) -> bool:
        """Whether it changed what is refused."""
        return bool(self.made or self.gone)


def refuse(now: Standing, pair: Pair) -> Excluded:
    """What is excluded once a human has said that a face is not a person."""
    return {**now.excluded, pair: now.excluded.get(pair, NEW)}


def allow(now: Standing, pair: Pair) -> Excluded:
    """What is excluded once that is taken back."""
    return {other: exclusion_id for other, exclusion_id in now.excluded.items() if other != pair}


def merge(now: Standing, survivor: UUID, merged: UUID) -> Excluded:
    """What is excluded once somebody is part of another: the survivor is neither what was not the one nor the other.

    But what a human gave to one of them stands against what was excluded from the other.
    """
    both = (survivor, merged)
    given = {face_id for face_id, (person_id, source) in now.held.items() if person_id in both and source == "HUMAN"}
    made: Excluded = {}
    for (face_id, person_id), exclusion_id in now.excluded.items():
        if person_id not in both:
            made[face_id, person_id] = exclusion_id
        elif face_id not in given:
            # Of two exclusions of one face the survivor's stands.
            made[face_id, survivor] = now.excluded.get((face_id, survivor), exclusion_id)
    return made


def take_back(entry: Entry, now: Standing, then: Standing) -> Excluded:
    """What is excluded once a change is undone, if nothing stands against that: ``then`` says who is part of whom after it.

    Only the very exclusions that the change made go, wherever other merges have brought them, and those that went by it come
    back. Whom the undo itself parts or joins is meant as they are, and not whom they are part of.
    """
    left = dict(now.excluded)
    links = Standing(parts={part: into for part, into in now.parts.items() if then.parts.get(part) == into})
    for (face_id, person_id), exclusion_id in entry.made.items():
        pair = (face_id, links.resolve(person_id))
        if left.get(pair) == exclusion_id:
            del left[pair]
    for (face_id, person_id), exclusion_id in entry.gone.items():
        pair = (face_id, links.resolve(person_id))
        if pair not in left and exclusion_id not in left.values():
            left[pair] = exclusion_id
    return left


def compare(expected: Excluded, stored: Excluded, told: Collection[str] = ()) -> None:
    """Fail where what is stored is not what is expected, but for the faces that somebody was ``told`` of."""
    known = set(expected.values()) - {NEW}
    for pair in expected.keys() | stored.keys():
        wanted, found = expected.get(pair), stored.get(pair)
        alike = found is not None and found not in known if wanted == NEW else wanted == found
        assert alike or str(pair[0]) in told, f"{pair}: {found} is stored and {wanted} expected"
