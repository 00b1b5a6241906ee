"""Random histories of people against a model: after every step both are equal, and undoing all of it ends where it began.

``KITH_TEST_HISTORIES`` and ``KITH_TEST_HISTORY_STEPS`` make it longer: 200 histories of 300 steps are the nightly measure. What
fails is printed as the shortest history found that fails, and stays reproducible.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from services.persons.domain.assigning import (
    AssignFaces,
    DeleteExclusion,
    ExcludeFace,
    UnassignFace,
    assign_faces,
    delete_exclusion,
    exclude_face,
    unassign_face,
)
from services.persons.domain.choosing import ChoosePrototype, choose_prototype
from services.persons.domain.doubles import AllowDoubles, allow_doubles
from services.persons.domain.merging import MergePersons, merge_persons
from services.persons.domain.model import PersonStatus, Source
from services.persons.domain.people import CreatePerson, UpdatePerson, create_person, update_person
from services.persons.domain.photos import MovePhotos, RemovePhotos, move_photos, remove_photos
from services.persons.domain.putting_away import DeletePerson, UndeletePerson, delete_person, undelete_person
from services.persons.repository.persons import get_person
from shared.db.engine import Transaction
from shared.errors import Reason
from shared.faces.eras import DatePrecision, PartialDate, find_era
from shared.faces.prototypes import Choice
from shared.foundation import Foundation
from tests.integration.persons.ledger_history import FACES, NEW, Histories
from tests.integration.persons.ledger_model import Held, Person, find_birth, find_named, find_refusal, list_pins, merge

HISTORIES = int(os.environ.get("KITH_TEST_HISTORIES", "6"))
STEPS = int(os.environ.get("KITH_TEST_HISTORY_STEPS", "40"))
PEOPLE = 5

FACE = st.integers(0, FACES - 1)
SOME = st.lists(FACE, min_size=1, max_size=4, unique=True)
SOURCE = st.sampled_from(Source)
NAME = st.sampled_from(["Anna", "Ben", "Chloé", "大輔"])
BIRTH = st.sampled_from(
    [
        None,
        PartialDate(date(1990, 1, 1), DatePrecision.YEAR),
        PartialDate(date(1990, 5, 1)),
        PartialDate(date(2020, 1, 3)),
    ]
)
FIELD = st.one_of(
    st.fixed_dictionaries({"name": NAME}),
    st.fixed_dictionaries({"birth_date": BIRTH}),
    st.fixed_dictionaries({"status": st.sampled_from([PersonStatus.ACTIVE, PersonStatus.HIDDEN])}),
)


class PeopleHistories(Histories):
    """All that people and machines do to a library's people, in any order."""

    @initialize(source=SOURCE)
    def begin(self, source: Source) -> None:
        """Three people, one of them with faces of a machine's."""
        for faces, by in (([0, 2], Source.HUMAN), ([1, 4], source), ([6], Source.HUMAN)):
            self.create(None)
            self.give(self.people[-1], faces, by, partial=False)

    @precondition(lambda self: len(self.people) < PEOPLE)
    @rule(birth=BIRTH)
    def create(self, birth: PartialDate | None) -> None:
        command = CreatePerson(self.library, f"Person {len(self.people)}", birth_date=birth)
        made = self.attempt(lambda tx: create_person(tx, self.deps, command, self.caller))
        assert made is not None
        expected = self.model.copy()
        expected.people[made.person.person_id] = Person(command.name, birth, deleted=False)
        self.people.append(made.person.person_id)
        self.entered(made.change_id, expected)

    @precondition(lambda self: self.people)
    @rule(data=st.data(), faces=SOME, source=SOURCE, partial=st.booleans())
    def assign(self, data: st.DataObject, faces: list[int], source: Source, partial: bool) -> None:
        self.give(self.one(data), faces, source, partial=partial)

    def give(self, person: UUID, faces: list[int], source: Source, *, partial: bool) -> None:
        face_ids = [self.faces[face] for face in faces]
        refused, going = find_refusal(self.model, self.photos, face_ids, person, source.value)
        refusal = self.find_inactive(person) or (None if partial else next(iter(refused.values()), None))
        command = AssignFaces(
            self.library, face_ids, person, source, 1.0 if source is Source.HUMAN else 0.5, partial=partial
        )
        made = self.attempt(lambda tx: assign_faces(tx, self.deps, command, self.caller), refusal)
        if made is None:
            return
        assert {item.item_id: item.reason for item in made.failures} == {
            str(key): it.value for key, it in refused.items()
        }
        expected = self.model.copy()
        for face_id in going:
            held = self.model.faces.get(face_id)
            expected.faces[face_id] = Held(person, source.value, held.choice if held else None)
        self.entered(made.change_id, expected)

    @precondition(lambda self: any(held.source == "MACHINE" for held in self.model.faces.values()))
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        given = [
            at
            for at, it in enumerate(self.faces)
            if it in self.model.faces and self.model.faces[it].source == "MACHINE"
        ]
        at = data.draw(st.sampled_from(given))
        self.give(self.model.faces[self.faces[at]].person, [at], Source.HUMAN, partial=False)

    @precondition(lambda self: self.model.faces)
    @rule(data=st.data(), stale=st.sampled_from([False, False, True]))
    def take_over(self, data: st.DataObject, stale: bool) -> None:
        """A human who has read whose face it is gives it to another."""
        face_id = self.one_held(data)
        person, held = self.one(data), self.model.faces[face_id]
        etag = self.versions[face_id][0 if stale else -1]
        refusal = self.find_inactive(person)
        if refusal is None and etag != self.versions[face_id][-1]:
            refusal = Reason.ETAG_MISMATCH
        elif refusal is None and held.person != person and (face_id, person) in self.model.excluded:
            refusal = Reason.FACE_EXCLUDED
        command = AssignFaces(self.library, [face_id], person, etag=str(etag))
        made = self.attempt(lambda tx: assign_faces(tx, self.deps, command, self.caller), refusal)
        if made is not None:
            expected = self.model.copy()
            expected.faces[face_id] = Held(person, "HUMAN", held.choice if held.person == person else None)
            self.entered(made.change_id, expected)

    @rule(data=st.data(), exclude=st.booleans())
    def unassign(self, data: st.DataObject, exclude: bool) -> None:
        face_id = self.one_face(data)
        held = self.model.faces.get(face_id)
        command = UnassignFace(self.library, face_id, exclude=exclude)
        refusal = None if held else Reason.FACE_NOT_ASSIGNED
        made = self.attempt(lambda tx: unassign_face(tx, self.deps, command, self.caller), refusal)
        if made is not None and held is not None:
            expected = self.model.copy()
            del expected.faces[face_id]
            if exclude:
                expected.excluded[face_id, held.person] = NEW
            self.entered(made.change_id, expected)

    @precondition(lambda self: self.people)
    @rule(data=st.data())
    def exclude(self, data: st.DataObject) -> None:
        person, face_id = self.one(data), self.one_face(data)
        there = (face_id, person) in self.model.excluded
        command = ExcludeFace(self.library, face_id, person)
        refusal = None if there else self.find_inactive(person)
        made = self.attempt(lambda tx: exclude_face(tx, self.deps, command, self.caller), refusal)
        if made is not None:
            expected = self.model.copy()
            expected.excluded[face_id, person] = made.exclusion.exclusion_id
            if (held := expected.faces.get(face_id)) is not None and held.person == person:
                del expected.faces[face_id]
            self.entered(made.change_id, expected)

    @precondition(lambda self: self.model.excluded)
    @rule(data=st.data())
    def allow_again(self, data: st.DataObject) -> None:
        pairs = [
            (face, person) for face in self.faces for person in self.people if (face, person) in self.model.excluded
        ]
        pair = pairs[data.draw(st.integers(0, len(pairs) - 1))]
        command = DeleteExclusion(self.library, self.model.excluded[pair])
        made = self.attempt(lambda tx: delete_exclusion(tx, self.deps, command, self.caller))
        expected = self.model.copy()
        del expected.excluded[pair]
        self.entered(made, expected)

    @precondition(lambda self: self.people)
    @rule(data=st.data(), values=FIELD)
    def change(self, data: st.DataObject, values: dict[str, Any]) -> None:
        person = self.one(data)
        command = UpdatePerson(self.library, person, "", values)
        refusal = self.find_inactive(person)
        made = self.attempt(lambda tx: update_person(tx, self.deps, command, self.caller), refusal)
        if made is not None:
            expected, known = self.model.copy(), self.model.people[person]
            status = values.get("status", PersonStatus(known.standing[0]))
            expected.people[person] = Person(
                values.get("name", known.name),
                values.get("birth_date", known.birth),
                (status.value, None),
                known.deleted,
            )
            self.entered(made.change_id, expected)

    @precondition(lambda self: self.model.faces)
    @rule(data=st.data(), choice=st.sampled_from([*Choice, None]))
    def choose(self, data: st.DataObject, choice: Choice | None) -> None:
        face_id = self.one_held(data)
        held, expected = self.model.faces[face_id], self.model.copy()
        command = ChoosePrototype(self.library, face_id, choice)
        made = self.attempt(lambda tx: choose_prototype(tx, self.deps, command, self.caller))
        assert made is not None
        if not (held.choice == "PINNED" if choice is Choice.CHOSEN else held.choice != "PINNED" and choice is None):
            expected.faces[face_id] = replace(held, choice=choice and choice.value)
        if choice is Choice.PINNED:
            birth = self.model.people[held.person].birth
            eras = {
                pin: find_era(birth, self.photos[pin].captured)
                for pin in (face_id, *list_pins(self.model, held.person))
            }
            for pin in eras.keys() - {face_id}:
                if eras[pin] is eras[face_id]:
                    expected.faces[pin] = replace(self.model.faces[pin], choice=None)
        self.entered(made.change_id, expected)

    @rule(faces=SOME, allowed=st.booleans())
    def allow_doubles(self, faces: list[int], allowed: bool) -> None:
        photos = sorted({self.photos[self.faces[face]].asset_id for face in faces})
        command = AllowDoubles(self.library, photos, allowed)
        expected = self.model.copy()
        expected.doubles = expected.doubles | set(photos) if allowed else expected.doubles - set(photos)
        self.entered(self.attempt(lambda tx: allow_doubles(tx, self.deps, command, self.caller)), expected)

    @precondition(lambda self: self.people)
    @rule(data=st.data(), faces=SOME)
    def remove_photos(self, data: st.DataObject, faces: list[int]) -> None:
        person = self.one(data)
        photos, held = self.held_in(person, faces)
        command = RemovePhotos(self.library, person, photos)
        refusal = self.find_inactive(person)
        made = self.attempt(lambda tx: remove_photos(tx, self.deps, command, self.caller), refusal)
        if made is not None:
            expected = self.model.copy()
            for face_id in held:
                del expected.faces[face_id]
            self.entered(made.change_id, expected)

    @precondition(lambda self: self.people)
    @rule(data=st.data(), faces=SOME, name=st.none() | NAME)
    def move_photos(self, data: st.DataObject, faces: list[int], name: str | None) -> None:
        person = self.one(data)
        target = self.one(data) if name is None else find_named(self.model, name)
        photos, held = self.held_in(person, faces)
        refusal = self.find_inactive(person, *([target] if target else []))
        if target == person:
            refusal = Reason.INVALID_FIELD
        command = MovePhotos(self.library, person, photos, target if name is None else None, name or "")
        made = self.attempt(lambda tx: move_photos(tx, self.deps, command, self.caller), refusal)
        if made is None:
            return
        stay = {face_id for face_id in held if target and (face_id, target) in self.model.excluded}
        assert {item.item_id for item in made.failures} == {str(face_id) for face_id in stay}
        assert made.faces_moved == len(held) - len(stay)
        expected = self.model.copy()
        if target is None and made.target_id is not None:
            assert made.target_created
            expected.people[made.target_id] = Person(name or "", deleted=False)
            self.people.append(made.target_id)
        for face_id in set(held) - stay:
            assert made.target_id is not None
            expected.faces[face_id] = Held(made.target_id, "HUMAN")
        self.entered(made.change_id, expected)

    @precondition(lambda self: len(self.people) > 1)
    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        survivor, merged = self.one(data), self.one(data)

        async def work(tx: Transaction) -> Any:
            one, other = await get_person(tx, self.library, survivor), await get_person(tx, self.library, merged)
            command = MergePersons(self.library, survivor, one.etag, merged, other.etag)
            return await merge_persons(tx, self.deps, command, self.caller)

        end = self.model.resolve(survivor)
        births = (self.model.people[end].birth, self.model.people[merged].birth)
        refusal = self.find_inactive(end, merged) or find_birth(*births)[1]
        made = self.attempt(work, Reason.INVALID_FIELD if merged in (survivor, end) else refusal)
        if made is not None:
            self.entered(made.change_id, merge(self.model, self.photos, end, merged))

    @precondition(lambda self: self.people)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        person = self.one(data)

        async def work(tx: Transaction) -> Any:
            etag = (await get_person(tx, self.library, person)).etag
            return await delete_person(tx, self.deps, DeletePerson(self.library, person, etag), self.caller)

        made = self.attempt(work, self.find_inactive(person))
        if made is not None:
            expected = self.model.copy()
            expected.faces = {face_id: held for face_id, held in expected.faces.items() if held.person != person}
            expected.people[person] = replace(expected.people[person], deleted=True)
            self.entered(made.change_id, expected)

    @precondition(lambda self: self.people)
    @rule(data=st.data())
    def undelete(self, data: st.DataObject) -> None:
        """The undoing of whatever put the person away last, and still stands."""
        person = self.one(data)
        if not self.model.people[person].deleted:
            command = UndeletePerson(self.library, person)
            self.attempt(lambda tx: undelete_person(tx, self.deps, command, self.caller), Reason.RESOURCE_EXISTS)
            return
        entry = next(entry for entry in reversed(self.history) if not entry.undone and entry.puts_away(person))
        made = self.attempt(
            lambda tx: undelete_person(tx, self.deps, UndeletePerson(self.library, person), self.caller)
        )
        assert made is not None
        self.take_back(entry, made.change_id, None)
        assert not self.model.people[person].deleted


async def test_histories_of_people_equal_the_model_and_can_be_undone_to_the_start(base: Foundation) -> None:
    class Here(PeopleHistories):
        pass

    Here.base, Here.loop = base, asyncio.get_running_loop()
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    limits = settings(
        max_examples=HISTORIES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=checks,
        print_blob=True,
    )
    await asyncio.to_thread(run_state_machine_as_test, Here, settings=limits)
