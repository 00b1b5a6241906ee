"""A library whose people are changed step by step, each step compared with the model; what all rules of a history share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from services.persons.domain.model import PersonsDeps
from services.persons.domain.undoing import Undo, undo_change
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import KithError, Reason
from shared.faces.eras import PartialDate
from shared.foundation import Foundation
from shared.jobs.model import ItemFailure
from tests.integration.library import random_vectors, seed_faces
from tests.integration.persons.ledger_model import Derived, Photo, State, check_invariants, read_state
from tests.integration.persons.ledger_reversal import Reversal

T = TypeVar("T")
FACES = 8
NEW = UUID(int=0)
"""The id of an exclusion that was not there before."""


@dataclass(slots=True, eq=False)
class Entry:
    """One change of the history: the states around it, which it undid if it is an undo, and whether it is undone itself."""

    change_id: UUID
    before: tuple[State, Derived]
    after: tuple[State, Derived]
    undid: Entry | None
    undone: bool = False

    def puts_away(self, person: UUID) -> bool:
        """Whether it is this change by which somebody is deleted."""
        there = self.before[0].people.get(person)
        return there is not None and not there.deleted and self.after[0].people[person].deleted

    def alters(self, kind: str) -> bool:
        """Whether it changed anything of a kind, by the state's name of it."""
        return bool(getattr(self.before[0], kind) != getattr(self.after[0], kind))

    @property
    def joins(self) -> bool:
        """Whether it made somebody part of another, or themselves again."""
        before, after = self.before[0].people, self.after[0].people
        return any(person.standing[1] != after[person_id].standing[1] for person_id, person in before.items())


class Histories(RuleBasedStateMachine):
    """People of one library, and the changes that were made of them; the rules are for who goes on from here."""

    base: Foundation
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.library = f"lib-{self.base.ids.new_uuid().hex[-12:]}"
        self.deps = PersonsDeps(self.base.clock, self.base.ids, self.base.settings.persons)
        self.caller = Caller("tester", "test")
        seeded = self.wait(seed_faces(self.base, random_vectors(FACES), library_id=self.library, faces_per_photo=2))
        self.faces = seeded.face_ids
        days = {name: date(2020, 1, 1) + timedelta(days=at) for at, name in enumerate(sorted({*seeded.asset_ids}))}
        self.photos = {
            face_id: Photo(name, PartialDate(days[name]))
            for face_id, name in zip(seeded.face_ids, seeded.asset_ids, strict=True)
        }
        self.people: list[UUID] = []
        self.history: list[Entry] = []
        self.versions: dict[UUID, list[int]] = {face_id: [] for face_id in self.faces}
        self.model, self.derived = self.read()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the test's own loop: the machine itself lives in a thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def read(self) -> tuple[State, Derived]:
        async def look() -> tuple[State, Derived]:
            async with self.base.database.snapshot() as tx:
                return await read_state(tx, self.library)

        return self.wait(look())

    def attempt(self, work: Callable[[Transaction], Awaitable[T]], refusal: Reason | None = None) -> T | None:
        """The answer, or None for what is to be refused, with this reason and no other, and changes nothing."""

        async def trial() -> T | Reason:
            try:
                async with self.base.database.transaction() as tx:
                    return await work(tx)
            except KithError as error:
                return error.reason

        self.sound = False
        answer = self.wait(trial())
        if refusal is None:
            assert not isinstance(answer, Reason), f"refused: {answer}"
            return answer
        assert answer is refusal
        self.entered(None, self.model)
        return None

    def entered(self, change_id: UUID | None, expected: State, undid: Entry | None = None) -> None:
        """Compare with what is stored, see that it is sound, and remember the change: there is one if anything differs."""
        stored, derived = self.read()
        known = set(self.model.excluded.values())
        for pair, exclusion_id in expected.excluded.items():
            if exclusion_id == NEW and stored.excluded.get(pair, NEW) not in known:
                expected.excluded[pair] = stored.excluded.get(pair, NEW)
        assert stored == expected
        # An undo may give a face that is its person's by another's doing nothing but the time since when.
        assert (stored != self.model) is (change_id is not None) or (undid is not None and stored == self.model)
        check_invariants(stored, derived)
        self.check_versions(stored, derived)
        if change_id is not None:
            entry = Entry(change_id, (self.model, self.derived), (stored, derived), undid)
            self.mark_undone(entry)
            self.history.append(entry)
        assert derived.undone == {entry.change_id: entry.undone for entry in self.history}
        self.model, self.derived, self.sound = stored, derived, True

    def check_versions(self, stored: State, derived: Derived) -> None:
        for face_id, version in derived.versions.items():
            seen = self.versions[face_id]
            if seen and seen[-1] == version:
                assert stored.faces[face_id] == self.model.faces.get(face_id), "an etag is of one state"
                continue
            assert version not in seen, "an etag never comes back"
            seen.append(version)

    def mark_undone(self, entry: Entry) -> None:
        """Who undoes an undo lets what that undid stand again, and so on."""
        link, undone = entry.undid, True
        while link is not None:
            link.undone, link, undone = undone, link.undid, not undone

    def one(self, data: st.DataObject) -> UUID:
        """Somebody, who is there more often than not."""
        living = [person for person in self.people if self.model.people[person].living]
        return self.people[
            data.draw(st.sampled_from([self.people.index(it) for it in (*living, *living, *self.people)]))
        ]

    def one_held(self, data: st.DataObject) -> UUID:
        return self.faces[
            data.draw(st.sampled_from([at for at, it in enumerate(self.faces) if it in self.model.faces]))
        ]

    def one_face(self, data: st.DataObject) -> UUID:
        """A face, which is somebody's more often than not."""
        held = [face_id for face_id in self.faces if face_id in self.model.faces]
        return self.faces[data.draw(st.sampled_from([self.faces.index(it) for it in (*held, *held, *self.faces)]))]

    def find_inactive(self, *people: UUID) -> Reason | None:
        return None if all(self.model.people[one].living for one in people) else Reason.PERSON_NOT_ACTIVE

    def held_in(self, person: UUID, faces: Sequence[int]) -> tuple[list[str], list[UUID]]:
        """Photos, and the person's faces in them."""
        photos = sorted({self.photos[self.faces[face]].asset_id for face in faces})
        held = [face_id for face_id, it in self.model.faces.items() if it.person == person]
        return photos, [face_id for face_id in held if self.photos[face_id].asset_id in photos]

    def list_standing(self, which: Callable[[Entry], bool] = lambda _: True) -> list[Entry]:
        return [entry for entry in self.history if not entry.undone and which(entry)]

    def pick(self, data: st.DataObject, entries: list[Entry]) -> Entry:
        """One of them, by its place in the history, which a failure prints."""
        return self.history[data.draw(st.sampled_from([self.history.index(entry) for entry in entries]))]

    @precondition(lambda self: self.list_standing())
    @rule(data=st.data())
    def undo_any(self, data: st.DataObject) -> None:
        """Whatever came since: what is still as the change left it goes back, and nothing else."""
        self.undo(self.pick(data, self.list_standing()))

    @precondition(lambda self: self.list_standing(lambda entry: entry.joins))
    @rule(data=st.data())
    def undo_a_merge(self, data: st.DataObject) -> None:
        self.undo(self.pick(data, self.list_standing(lambda entry: entry.joins)))

    @precondition(lambda self: self.list_standing(lambda entry: entry.alters("people")))
    @rule(data=st.data())
    def undo_of_people(self, data: st.DataObject) -> None:
        self.undo(self.pick(data, self.list_standing(lambda entry: entry.alters("people"))))

    @precondition(lambda self: self.list_standing(lambda entry: entry.alters("faces")))
    @rule(data=st.data())
    def undo_of_faces(self, data: st.DataObject) -> None:
        self.undo(self.pick(data, self.list_standing(lambda entry: entry.alters("faces"))))

    @precondition(lambda self: self.list_standing(lambda entry: entry.alters("excluded")))
    @rule(data=st.data())
    def undo_of_exclusions(self, data: st.DataObject) -> None:
        self.undo(self.pick(data, self.list_standing(lambda entry: entry.alters("excluded"))))

    @precondition(lambda self: self.list_standing(lambda entry: entry.undid is not None))
    @rule(data=st.data())
    def undo_an_undo(self, data: st.DataObject) -> None:
        self.undo(self.pick(data, self.list_standing(lambda entry: entry.undid is not None)))

    @precondition(lambda self: any(entry.undone for entry in self.history))
    @rule(data=st.data())
    def undo_twice(self, data: st.DataObject) -> None:
        entry = self.pick(data, [entry for entry in self.history if entry.undone])
        command = Undo(self.library, entry.change_id)
        self.attempt(lambda tx: undo_change(tx, self.deps, command, self.caller), Reason.CHANGE_NOT_UNDOABLE)

    def undo(self, entry: Entry) -> list[str]:
        """Answers with what was skipped."""
        command = Undo(self.library, entry.change_id)
        made = self.attempt(lambda tx: undo_change(tx, self.deps, command, self.caller))
        assert made is not None
        assert (made.reverted > 0) is (made.change_id is not None)
        note(f"undid {self.history.index(entry)}, skipped {[self.tell(item) for item in made.skipped]}")
        skipped = [item.item_id for item in made.skipped]
        self.take_back(entry, made.change_id, skipped)
        return skipped

    def tell(self, item: ItemFailure) -> str:
        """A skipped item by its place among the faces or the people."""
        text = f"{item.item_id}: {item.message}"
        for name, known in (("face", self.faces), ("person", self.people)):
            for at, one in enumerate(known):
                text = text.replace(str(one), f"{name} {at}")
        return text

    def undo_exactly(self, entry: Entry) -> None:
        """Of the latest change that stands nothing is skipped, and all is as before it, what follows from it too."""
        assert not self.undo(entry)
        before, derived = entry.before
        people = {person: replace(it, deleted=True) for person, it in self.model.people.items()}
        assert self.model == replace(before, people={**people, **before.people})
        assert (self.derived.prototypes, self.derived.terms) == (derived.prototypes, derived.terms)

    def take_back(self, entry: Entry, change_id: UUID | None, skipped: Collection[str] | None) -> None:
        """See that an undo kept to its word, and take what it made of the state as given."""
        stored, _ = self.read()
        Reversal(entry.before[0], entry.after[0], self.model, stored, skipped).check()
        self.entered(change_id, stored, entry)

    def teardown(self) -> None:
        """Undo everything, the undos too, from the last to the first: step by step all is as it was, and in the end nothing is.

        Each undo lets what it undid stand again, so that not one of them is undone already when its turn comes.
        """
        if not self.sound:
            return
        for entry in reversed(self.history[:]):
            self.undo_exactly(entry)
        people = {person_id: replace(person, deleted=True) for person_id, person in self.model.people.items()}
        assert self.model == State(people), "nobody is left, and nothing is anybody's"
        assert not self.derived.prototypes
