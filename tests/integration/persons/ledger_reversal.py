"""What an undo may do, judged by the states around a change and those around its undo; it knows nothing of the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

from tests.integration.persons.ledger_model import ACTIVE, NOBODY, Held, Pair, Person, State


class Reversal:
    """Holds an undo to its word: what differs was the change's doing and is as before it, the rest is told of.

    ``before`` and ``after`` are the states around the change, ``now`` and ``then`` those around its undo. A person who is part
    of another, before the undo and after it, stands for that other.
    """

    def __init__(self, before: State, after: State, now: State, then: State, skipped: Collection[str] | None) -> None:
        self.before, self.after, self.now, self.then = before, after, now, then
        self.untold, self.skipped = skipped is None, set(skipped or ())
        cut = {p: it for p, it in now.people.items() if it.standing != then.people[p].standing}
        self.links = State({**now.people, **{p: replace(it, standing=ACTIVE) for p, it in cut.items()}})

    def check(self) -> None:
        """Everything is left alone, taken back, or told of with a cause."""
        touched = {*self.check_people(), *self.check_faces(), *self.check_exclusions(), *self.check_doubles()}
        assert self.skipped <= touched, "only what the change touched and the undo did not take back is skipped"

    def check_people(self) -> Iterator[str]:
        assert self.now.people.keys() == self.then.people.keys()
        for person_id, now in self.now.people.items():
            then, after = self.then.people[person_id], self.after.people.get(person_id, NOBODY)
            before = self.before.people.get(person_id, replace(after, deleted=True))
            for name in (item.name for item in fields(Person)):
                b, a, n, t = (getattr(person, name) for person in (before, after, now, then))
                if b == a or n != a:
                    assert n == t, f"the {name} was not the change's doing, or another's since"
                    if b == a or n == b:
                        continue
                if t == b:
                    continue
                yield self._told(person_id)
                assert t == n
                assert n != a or self._find_use(person_id, name), f"nothing keeps the {name} from going back"

    def _find_use(self, person_id: UUID, name: str) -> bool:
        """Why a person cannot be put away, or become part of another again, though nothing else said so since."""
        if name == "deleted":
            return self.then.holders()[person_id] > 0 or self._is_refused()
        into = self.before.people[person_id].standing[1] if name == "standing" else None
        if into is None:
            return self._is_refused()
        faces = [face_id for face_id, held in self.now.faces.items() if held.person == person_id]
        made = self.after.excluded.items() - self.before.excluded.items()
        excluded = any(
            pair[1] == person_id and (pair, exclusion_id) not in made
            for pair, exclusion_id in self.now.excluded.items()
        )
        lost = self.now.resolve(into) == person_id
        return excluded or lost or any(self._stays(face_id) for face_id in faces)

    def _stays(self, face_id: UUID) -> bool:
        b, a, n = (s.faces.get(face_id) for s in (self.before, self.after, self.now))
        wanted = self._find_wanted(b, a, n)
        kept = wanted is not None and (
            self.now.people[wanted.person].deleted or (face_id, wanted.person) in self.now.excluded
        )
        return b == a or kept or not self._is_as_left(b, a, n)

    def check_faces(self) -> Iterator[str]:
        for face_id in (
            self.before.faces.keys() | self.after.faces.keys() | self.now.faces.keys() | self.then.faces.keys()
        ):
            b, a, n, t = (s.faces.get(face_id) for s in (self.before, self.after, self.now, self.then))
            wanted = self._find_wanted(b, a, n)
            if b == a or not self._is_as_left(b, a, n):
                assert n == t, "the face was not the change's doing, or another's since"
            elif t != wanted:
                assert n == t, "a face goes back to what it was, or nowhere"
                assert self._find_obstacle(face_id, wanted), "nothing keeps the face from going back"
            if b != a and t != wanted:
                yield self._told(face_id)
            elif b != a and n == t and str(face_id) in self.skipped:
                # It is so already, by another's doing.
                yield str(face_id)

    def _is_as_left(self, b: Held | None, a: Held | None, n: Held | None) -> bool:
        if a is None or n is None:
            return a is n
        if n.person not in (a.person, self.links.resolve(a.person)):
            return False
        if b is not None and b.person == a.person:
            return (b.source == a.source or n.source == a.source) and (b.choice == a.choice or n.choice == a.choice)
        return n.source == a.source

    def _find_wanted(self, b: Held | None, a: Held | None, n: Held | None) -> Held | None:
        """Only what the change altered goes back: a word on the face of its own stays said."""
        if b is None:
            return None
        person = self.links.resolve(b.person)
        if a is None or n is None:
            return Held(person, b.source, b.choice)
        confirmed = b.person == a.person and b.source == a.source
        return Held(person, n.source if confirmed else b.source, b.choice if n.choice == a.choice else n.choice)

    def _find_obstacle(self, face_id: UUID, wanted: Held | None) -> bool:
        if wanted is None or self._is_refused():
            return self._is_refused()
        return self.then.people[wanted.person].deleted or (face_id, wanted.person) in self.then.excluded

    def check_exclusions(self) -> Iterator[str]:
        made = dict(self.after.excluded.items() - self.before.excluded.items())
        gone = dict(self.before.excluded.items() - self.after.excluded.items())
        back = {(self._pair(pair), exclusion_id) for pair, exclusion_id in gone.items()}
        away = {(self._pair(pair), exclusion_id) for pair, exclusion_id in made.items()}
        assert self.then.excluded.items() - self.now.excluded.items() <= back, "only what the change took comes back"
        assert self.now.excluded.items() - self.then.excluded.items() <= away, "only the very exclusion it made goes"
        for pair, exclusion_id in away:
            there = self.now.excluded.get(pair)
            if there == exclusion_id and self.then.excluded.get(pair) == exclusion_id and (pair, there) not in back:
                assert self._is_refused(), "nothing keeps the exclusion from going"
            elif there is not None and there != exclusion_id:
                yield str(pair[0]) if self._is_refused() else self._told(pair[0])
        for pair, exclusion_id in back:
            if pair in self.then.excluded or exclusion_id in self.then.excluded.values() or self._is_refused():
                continue
            yield self._told(pair[0])
            held = self.then.faces.get(pair[0])
            assert held is not None, "nothing keeps the exclusion from coming back"
            assert held.person == pair[1], "nothing keeps the exclusion from coming back"

    def _pair(self, pair: Pair) -> Pair:
        return pair[0], self.links.resolve(pair[1])

    def check_doubles(self) -> Iterator[str]:
        for asset_id in self.before.doubles | self.after.doubles | self.now.doubles | self.then.doubles:
            b, a, n, t = (asset_id in s.doubles for s in (self.before, self.after, self.now, self.then))
            assert t == (b if n == a else n)
            if b != a != n:
                yield str(asset_id)

    def _is_refused(self) -> bool:
        """Whether a merge could not be made again, and so nothing of it was."""
        again = [p for p, it in self.before.people.items() if it.standing[1] and self.after.people[p] != it]
        return self.now == self.then and any(str(person_id) in self.skipped for person_id in again)

    def _told(self, item_id: Any) -> str:
        assert self.untold or str(item_id) in self.skipped or self._is_refused(), (
            f"{item_id} did not go back, and nobody is told"
        )
        return str(item_id)
