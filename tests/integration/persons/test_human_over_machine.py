"""Human work is never overwritten by a machine: random sequences of what both may do to few faces and people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

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
from services.persons.domain.doubles import AllowDoubles, allow_doubles
from services.persons.domain.model import Source
from services.persons.domain.people import CreatePerson, create_person
from services.persons.domain.photos import MovePhotos, move_photos
from services.persons.domain.undoing import Undo, undo_change
from services.persons.wiring import build_deps
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.tables_persons import allowed_doubles, assignments, changes, exclusions
from shared.errors import KithError
from shared.foundation import Foundation
from tests.integration.library import SeededFaces, random_vectors, seed_faces

FACES, PEOPLE = 6, 3
CALLER = Caller("test", "test")
HUMAN_ACTIONS = ("assign", "unassign", "exclude", "take_back", "move", "allow", "undo")
MACHINE_ACTIONS = ("machine_assign", "machine_batch")


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do; ``flag`` varies it: with the etag, with an exclusion, allowed."""

    name: str
    face: int
    person: int
    flag: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What is so: (person, source, version) by face, the excluded pairs, and the photos with a mirror."""

    held: dict[UUID, tuple[UUID, str, int]]
    excluded: set[tuple[UUID, UUID]]
    mirrors: set[str]


ACTIONS = st.builds(
    Action,
    # As many of a machine's as of humans.
    st.one_of(st.sampled_from(HUMAN_ACTIONS), st.sampled_from(MACHINE_ACTIONS)),
    st.integers(0, FACES - 1),
    st.integers(0, PEOPLE - 1),
    st.booleans(),
)


class Album:
    """A library of its own, three photos with two faces each, that people and machines work on."""

    def __init__(self, base: Foundation, library_id: str, seeded: SeededFaces, people: Sequence[UUID]) -> None:
        self._base = base
        self._deps = build_deps(base)
        self._library_id = library_id
        self._seeded = seeded
        self._people = people

    @classmethod
    async def make(cls, base: Foundation) -> Album:
        """A fresh one."""
        library_id = f"run-{base.ids.new_uuid()}"
        seeded = await seed_faces(base, random_vectors(FACES), library_id=library_id, faces_per_photo=2)
        people = []
        async with base.database.transaction() as tx:
            for number in range(PEOPLE):
                command = CreatePerson(library_id, f"Person {number}")
                people.append((await create_person(tx, build_deps(base), command, CALLER)).person.person_id)
        return cls(base, library_id, seeded, people)

    async def read(self) -> Standing:
        """How everything stands."""
        async with self._base.database.transaction() as tx:
            held = await tx.rows(select(assignments).where(assignments.c.library_id == self._library_id))
            excluded = await tx.rows(select(exclusions).where(exclusions.c.library_id == self._library_id))
            mirrors = await tx.rows(select(allowed_doubles).where(allowed_doubles.c.library_id == self._library_id))
        return Standing(
            {row.face_id: (row.person_id, row.source, row.version) for row in held},
            {(row.face_id, row.person_id) for row in excluded},
            {row.asset_id for row in mirrors},
        )

    async def do(self, action: Action, before: Standing) -> bool:
        """Do it; False if it was refused, and then nothing was done."""
        try:
            async with self._base.database.transaction() as tx:
                await self._do(tx, action, before)
        except KithError:
            return False
        return True

    async def _do(self, tx: Transaction, action: Action, before: Standing) -> None:
        deps, library_id = self._deps, self._library_id
        face_id, person_id = self._seeded.face_ids[action.face], self._people[action.person]
        asset_id = self._seeded.asset_ids[action.face]
        etag = str(before.held[face_id][2]) if action.flag and face_id in before.held else ""
        match action.name:
            case "assign":
                await assign_faces(tx, deps, AssignFaces(library_id, [face_id], person_id, etag=etag), CALLER)
            case "unassign":
                await unassign_face(tx, deps, UnassignFace(library_id, face_id, exclude=action.flag), CALLER)
            case "exclude":
                await exclude_face(tx, deps, ExcludeFace(library_id, face_id, person_id), CALLER)
            case "take_back":
                row = await tx.one_or_none(
                    select(exclusions.c.exclusion_id).where(exclusions.c.face_id == face_id).limit(1)
                )
                if row is not None:
                    await delete_exclusion(tx, deps, DeleteExclusion(library_id, row.exclusion_id), CALLER)
            case "move":
                held = before.held.get(face_id)
                if held is not None:
                    command = MovePhotos(library_id, held[0], [asset_id], person_id, "")
                    await move_photos(tx, deps, command, CALLER)
            case "allow":
                await allow_doubles(tx, deps, AllowDoubles(library_id, [asset_id], action.flag), CALLER)
            case "undo":
                latest = select(changes.c.change_id).where(
                    changes.c.library_id == library_id, changes.c.face_count > 0, changes.c.undone_by.is_(None)
                )
                change_id = await tx.scalar(latest.order_by(changes.c.sequence.desc()).limit(1))
                if change_id is not None:
                    await undo_change(tx, deps, Undo(library_id, change_id), CALLER)
            case "machine_assign":
                machine = AssignFaces(
                    library_id, [face_id], person_id, source=Source.MACHINE, confidence=0.9, etag=etag
                )
                await assign_faces(tx, deps, machine, CALLER)
            case "machine_batch":
                face_ids = self._seeded.face_ids if action.flag else self._seeded.face_ids[action.face :: -1]
                batch = AssignFaces(
                    library_id, face_ids, person_id, source=Source.MACHINE, confidence=0.9, partial=True
                )
                await assign_faces(tx, deps, batch, CALLER)

    def judge_machine(self, before: Standing, after: Standing) -> None:
        """Fail if a machine has touched a human's word, or did what it may not."""
        photo_of = dict(zip(self._seeded.face_ids, self._seeded.asset_ids, strict=True))
        said = {face_id: held for face_id, held in before.held.items() if held[1] == "HUMAN"}
        assert {face_id: after.held.get(face_id) for face_id in said} == said
        assert after.excluded == before.excluded
        assert after.mirrors == before.mirrors
        for face_id, held in after.held.items():
            if before.held.get(face_id) == held:
                continue
            assert held[1] == "MACHINE"
            assert (face_id, held[0]) not in before.excluded
            others = {
                other
                for other, (person_id, _, _) in after.held.items()
                if other != face_id and person_id == held[0] and photo_of[other] == photo_of[face_id]
            }
            assert not others or photo_of[face_id] in after.mirrors


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, min_size=60, max_size=60))
async def test_no_machine_ever_overwrites_a_human(base: Foundation, actions: list[Action]) -> None:
    album = await Album.make(base)
    before = await album.read()
    for action in actions:
        done = await album.do(action, before)
        after = await album.read()
        if action.name in MACHINE_ACTIONS:
            album.judge_machine(before, after)
        # Whoever acted: nobody has a face that was excluded from them.
        assert not {(face_id, held[0]) for face_id, held in after.held.items()} & after.excluded
        assert done or after == before
        before = after
