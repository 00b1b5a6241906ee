"""Random histories of people against a model: after every step both are equal, and undoing all of it ends where it began.

``KITH_TEST_HISTORIES`` and ``KITH_TEST_HISTORY_STEPS`` make it longer: 200 histories of 300 steps are the nightly measure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from services.persons.domain.assigning import (
    AssignFaces,
    ExcludeFace,
    UnassignFace,
    assign_faces,
    exclude_face,
    unassign_face,
)
from services.persons.domain.merging import MergePersons, merge_persons
from services.persons.domain.model import PersonsDeps, Source
from services.persons.domain.people import CreatePerson, UpdatePerson, create_person, update_person
from services.persons.domain.putting_away import DeletePerson, UndeletePerson, delete_person, undelete_person
from services.persons.domain.undoing import ChangeUndone, Undo, undo_change
from services.persons.repository.persons import get_person
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.tables_persons import assignments, exclusions, persons, prototypes
from shared.errors import KithError
from shared.foundation import Foundation
from tests.integration.library import random_vectors, seed_faces

HISTORIES = int(os.environ.get("KITH_TEST_HISTORIES", "6"))
STEPS = int(os.environ.get("KITH_TEST_HISTORY_STEPS", "40"))
FACES = 8
PEOPLE = 5

T = TypeVar("T")
Key = tuple[Any, ...]
State = dict[Key, Any]

FACE = st.integers(0, FACES - 1)
SOURCE = st.sampled_from([Source.HUMAN, Source.MACHINE])


@dataclass(frozen=True)
class Entry:
    """One change of the history: the states around it, and whether changes that move whole persons came after."""

    change_id: UUID
    before: State
    after: State
    whole: bool


class Histories(RuleBasedStateMachine):
    """People of one library. The model is a flat dictionary; it knows nothing of how the ledger does it."""

    base: Foundation
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.library = f"lib-{self.base.ids.new_uuid().hex[-12:]}"
        self.deps = PersonsDeps(self.base.clock, self.base.ids, self.base.settings.persons)
        self.caller = Caller("tester", "test")
        self.faces = self.wait(seed_faces(self.base, random_vectors(FACES), library_id=self.library)).face_ids
        self.people: list[UUID] = []
        self.history: list[Entry] = []
        self.model: State = {}
        self.start = self.read()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the test's own loop: the machine itself lives in a thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def do(self, work: Callable[[Transaction], Awaitable[T]]) -> T | None:
        """The answer, or None for what was refused."""

        async def attempt() -> T | None:
            try:
                async with self.base.database.transaction() as tx:
                    return await work(tx)
            except KithError:
                return None

        return self.wait(attempt())

    def read(self) -> State:
        """What is stored, in the model's form, and the prototypes, which follow from it."""

        async def look() -> State:
            async with self.base.database.snapshot() as tx:
                state: State = {}
                for row in await tx.rows(select(persons).where(persons.c.library_id == self.library)):
                    state["name", row.person_id] = row.name
                    state["merged", row.person_id] = row.merged_into
                    state["deleted", row.person_id] = row.deleted_at is not None
                    state["count", row.person_id] = row.face_count
                for row in await tx.rows(select(assignments).where(assignments.c.library_id == self.library)):
                    state["face", row.face_id] = (row.person_id, row.source, row.choice)
                for row in await tx.rows(select(exclusions).where(exclusions.c.library_id == self.library)):
                    state["excluded", row.face_id, row.person_id] = True
                for row in await tx.rows(select(prototypes).where(prototypes.c.library_id == self.library)):
                    state["prototype", row.face_id] = (row.person_id, row.role)
                return state

        return self.wait(look())

    def entered(self, change_id: UUID | None, expected: State | None, *, whole: bool = False) -> None:
        """Compare, and remember the change. ``expected`` None: only what the store says, as nothing was refused or done."""
        stored = self.read()
        model = self.model if expected is None else expected
        counts: dict[UUID, int] = {}
        for key, value in model.items():
            if key[0] == "face":
                counts[value[0]] = counts.get(value[0], 0) + 1
        wanted = {**model, **{("count", person): counts.get(person, 0) for person in self.people}}
        assert {key: value for key, value in stored.items() if key[0] != "prototype"} == wanted
        if change_id is not None:
            before = self.history[-1].after if self.history else self.start
            self.history.append(Entry(change_id, before, stored, whole))
        self.model = model

    def alive(self, person: UUID) -> bool:
        return not self.model["deleted", person] and self.model["merged", person] is None

    @precondition(lambda self: len(self.people) < PEOPLE)
    @rule()
    def create(self) -> None:
        name = f"Person {len(self.people)}"
        made = self.do(lambda tx: create_person(tx, self.deps, CreatePerson(self.library, name), self.caller))
        assert made is not None
        person = made.person.person_id
        self.people.append(person)
        self.entered(
            made.change_id, {**self.model, ("name", person): name, ("merged", person): None, ("deleted", person): False}
        )

    @precondition(lambda self: self.people)
    @rule(face=FACE, data=st.data(), source=SOURCE)
    def assign(self, face: int, data: st.DataObject, source: Source) -> None:
        person, face_id = data.draw(st.sampled_from(self.people)), self.faces[face]
        command = AssignFaces(self.library, [face_id], person, source)
        made = self.do(lambda tx: assign_faces(tx, self.deps, command, self.caller))
        held = self.model.get(("face", face_id))
        confirms = held is not None and held[0] == person
        allowed = (
            self.alive(person) and (held is None or confirms) and not self.model.get(("excluded", face_id, person))
        )
        assert (made is not None) is (allowed or (confirms and self.alive(person)))
        if made is None or made.change_id is None:
            return self.entered(None, None)
        choice = held[2] if held else None
        return self.entered(made.change_id, {**self.model, ("face", face_id): (person, source.value, choice)})

    @rule(face=FACE, exclude=st.booleans())
    def unassign(self, face: int, exclude: bool) -> None:
        face_id = self.faces[face]
        held = self.model.get(("face", face_id))
        command = UnassignFace(self.library, face_id, exclude=exclude)
        made = self.do(lambda tx: unassign_face(tx, self.deps, command, self.caller))
        assert (made is not None) is (held is not None)
        if made is None or held is None:
            return self.entered(None, None)
        expected = {key: value for key, value in self.model.items() if key != ("face", face_id)}
        if exclude:
            expected["excluded", face_id, held[0]] = True
        return self.entered(made.change_id, expected)

    @precondition(lambda self: self.people)
    @rule(face=FACE, data=st.data())
    def exclude(self, face: int, data: st.DataObject) -> None:
        person, face_id = data.draw(st.sampled_from(self.people)), self.faces[face]
        command = ExcludeFace(self.library, face_id, person)
        made = self.do(lambda tx: exclude_face(tx, self.deps, command, self.caller))
        if made is None or made.change_id is None:
            assert not self.alive(person) or self.model.get(("excluded", face_id, person))
            return self.entered(None, None)
        expected = {**self.model, ("excluded", face_id, person): True}
        if expected.get(("face", face_id), (None,))[0] == person:
            del expected["face", face_id]
        return self.entered(made.change_id, expected)

    @precondition(lambda self: self.people)
    @rule(data=st.data(), name=st.sampled_from(["Anna", "Ben", "Chloé", "大輔"]))
    def rename(self, data: st.DataObject, name: str) -> None:
        person = data.draw(st.sampled_from(self.people))
        command = UpdatePerson(self.library, person, "", {"name": name})
        made = self.do(lambda tx: update_person(tx, self.deps, command, self.caller))
        assert (made is not None) is self.alive(person)
        if made is None or made.change_id is None:
            return self.entered(None, None)
        return self.entered(made.change_id, {**self.model, ("name", person): name})

    @precondition(lambda self: len(self.people) > 1)
    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        survivor, merged = data.draw(st.permutations(self.people))[:2]

        async def work(tx: Transaction) -> Any:
            one, other = await get_person(tx, self.library, survivor), await get_person(tx, self.library, merged)
            command = MergePersons(self.library, survivor, one.etag, merged, other.etag)
            return await merge_persons(tx, self.deps, command, self.caller)

        end = survivor
        while self.model["merged", end] is not None:
            end = self.model["merged", end]
        made = self.do(work)
        assert (made is not None) is (self.alive(merged) and self.alive(end) and end != merged)
        if made is None:
            return self.entered(None, None)
        return self.entered(made.change_id, self._merged(end, merged), whole=True)

    def _merged(self, survivor: UUID, merged: UUID) -> State:
        expected: State = {}
        for key, value in self.model.items():
            if key[0] == "face" and value[0] in (survivor, merged):
                other = merged if value[0] == survivor else survivor
                if self.model.get(("excluded", key[1], other)) and value[1] == "MACHINE":
                    continue
                expected[key] = (survivor, *value[1:])
            elif key[0] == "excluded" and key[2] in (survivor, merged):
                holder, source, _ = self.model.get(("face", key[1]), (None, None, None))
                if source != "HUMAN" or holder not in (survivor, merged):
                    expected["excluded", key[1], survivor] = True
            else:
                expected[key] = value
        expected["merged", merged] = survivor
        return expected

    @precondition(lambda self: self.people)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        person = data.draw(st.sampled_from(self.people))

        async def work(tx: Transaction) -> Any:
            etag = (await get_person(tx, self.library, person)).etag
            return await delete_person(tx, self.deps, DeletePerson(self.library, person, etag), self.caller)

        made = self.do(work)
        assert (made is not None) is self.alive(person)
        if made is None:
            return self.entered(None, None)
        expected = {key: value for key, value in self.model.items() if key[0] != "face" or value[0] != person}
        return self.entered(made.change_id, {**expected, ("deleted", person): True}, whole=True)

    @precondition(lambda self: self.history)
    @rule()
    def undo_the_last(self) -> None:
        """Back to the very state before, derived things included."""
        self._undo(self.history[-1])

    @precondition(lambda self: self.people and self.history and self.history[-1].whole)
    @rule()
    def undelete_the_last(self) -> None:
        person = next((p for p in self.people if self.model["deleted", p]), None)
        if person is None:
            return
        before = dict(self.model.items())
        command = UndeletePerson(self.library, person)
        made = self.do(lambda tx: undelete_person(tx, self.deps, command, self.caller))
        assert made is not None
        stored = self.read()
        back = {key: value for key, value in stored.items() if key[0] == "face" and key not in before}
        assert all(value[0] == person for value in back.values()), "an undeleted person takes back only free faces"
        self.entered(made.change_id, {**before, **back, ("deleted", person): False}, whole=True)

    @precondition(lambda self: any(not entry.whole for entry in self.history))
    @rule(data=st.data())
    def undo_an_earlier_one(self, data: st.DataObject) -> None:
        """One after which nobody was merged or put away: what is still as it left it goes back, key by key."""
        last_whole = max((at for at, entry in enumerate(self.history) if entry.whole), default=-1)
        recent = self.history[last_whole + 1 :]
        if not recent:
            return
        entry = data.draw(st.sampled_from(recent))
        made = self._take_back(entry)
        if made is None or made.change_id is None:
            return self.entered(None, None)
        expected = dict(self.model)
        changed = {key for key in {*entry.before, *entry.after} if entry.before.get(key) != entry.after.get(key)}
        stored = self.read()
        for key in {key for key in {*stored, *expected} if key[0] not in ("count", "prototype")}:
            if stored.get(key) == expected.get(key):
                continue
            assert key in changed, "an undo touches only what its change touched"
            assert expected.get(key) == entry.after.get(key), "what was changed since is left alone"
            # A person whose creation is undone stays as a row that is put away.
            assert stored.get(key) == entry.before.get(key, True if key[0] == "deleted" else None), (
                "back to what it was"
            )
            if key in stored:
                expected[key] = stored[key]
            else:
                del expected[key]
        return self.entered(made.change_id, expected)

    def _take_back(self, entry: Entry) -> ChangeUndone | None:
        return self.do(lambda tx: undo_change(tx, self.deps, Undo(self.library, entry.change_id), self.caller))

    def _undo(self, entry: Entry) -> None:
        made = self._take_back(entry)
        assert made is not None
        assert made.change_id is not None
        assert not made.skipped
        stored = self.read()
        gone = {("deleted", person) for person in self.people} - entry.before.keys()
        # A person who was created stays as a row that is put away.
        assert {key: value for key, value in stored.items() if key in entry.before} == entry.before
        assert {
            key for key in stored.keys() - entry.before.keys() if key[0] in ("face", "excluded", "prototype")
        } == set()
        assert all(stored[key] for key in gone)
        model = {key: value for key, value in stored.items() if key[0] not in ("count", "prototype")}
        self.entered(made.change_id, model, whole=True)

    def teardown(self) -> None:
        """Undo everything, the undos too, from the last to the first: nobody is left, and nothing is anybody's."""
        for entry in reversed(self.history):
            made = self._take_back(entry)
            assert made is None or not made.skipped
        state = self.read()
        assert {key for key in state if key[0] in ("face", "excluded", "prototype")} == set()
        assert all(state["deleted", person] for person in self.people)


async def test_histories_of_people_equal_the_model_and_can_be_undone_to_the_start(base: Foundation) -> None:
    class Here(Histories):
        pass

    Here.base, Here.loop = base, asyncio.get_running_loop()
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    limits = settings(max_examples=HISTORIES, stateful_step_count=STEPS, deadline=None, suppress_health_check=checks)
    await asyncio.to_thread(run_state_machine_as_test, Here, settings=limits)
