"""Who is labelled, what they are recognised by, and which of their faces are to be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from bench.areas.suggestions.clients import Clients
from bench.areas.suggestions.faces import DrawnFaces, Ints
from bench.areas.suggestions.library import SeededLibrary
from shared.db.tables_persons import assignments, prototypes
from shared.db.tables_suggestions import suggestions
from shared.foundation import Foundation

LABELLED_SHARE: Final = 0.02
FACES_LABELLED: Final = 5
LABELLING_SEED: Final = 0
LIKE_A_PROTOTYPE: Final = 0.35
"""From this cosine to the best of their person's prototypes on a face is to be found."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPeople:
    """``ids``: of the persons, by their number in the truth."""

    library: SeededLibrary
    ids: Mapping[int, UUID]

    @property
    def numbers(self) -> dict[UUID, int]:
        """The other way round."""
        return {person_id: number for number, person_id in self.ids.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Faces (n,) that are said to be persons (n,), both by number, and how surely (n,)."""

    faces: Ints
    persons: Ints
    confidences: npt.NDArray[np.float64]

    def right(self, drawn: DrawnFaces) -> npt.NDArray[np.bool_]:
        """Which of them are true."""
        return np.equal(drawn.truth[self.faces], self.persons)

    def take(self, rows: npt.NDArray[np.bool_]) -> Pairs:
        """Those of a mask (n,)."""
        return Pairs(self.faces[rows], self.persons[rows], self.confidences[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What is known at one moment: whose prototypes the faces (n,) are, and which faces (N,) have a person."""

    prototypes: Ints
    owners: Ints
    assigned: npt.NDArray[np.bool_]

    def find_wanted(self, drawn: DrawnFaces) -> npt.NDArray[np.bool_]:
        """Unassigned faces (N,) of labelled people that are like a prototype of theirs."""
        wanted = np.zeros(len(drawn), dtype=np.bool_)
        for number in np.unique(self.owners):
            free = np.flatnonzero((drawn.truth == number) & ~self.assigned)
            known = drawn.take(self.prototypes[self.owners == number])
            if len(free):
                wanted[free] = (drawn.take(free) @ known.T).max(axis=1) >= LIKE_A_PROTOTYPE
        return wanted


def choose_labelled(drawn: DrawnFaces) -> dict[int, Ints]:
    """2 % of the people, among those of whom more than five faces are there, and five faces of each; by chance alone."""
    random = np.random.default_rng(LABELLING_SEED)
    sizes = np.bincount(drawn.truth[drawn.truth >= 0])
    enough = np.flatnonzero(sizes > FACES_LABELLED)
    chosen = np.sort(random.choice(enough, round(LABELLED_SHARE * np.count_nonzero(sizes)), replace=False))
    return {
        int(number): random.choice(np.flatnonzero(drawn.truth == number), FACES_LABELLED, replace=False)
        for number in chosen
    }


async def label_people(
    clients: Clients, library: SeededLibrary, chosen: Mapping[int, Sequence[int] | Ints]
) -> LabelledPeople:
    """Name these people, as a client would."""
    ids = {
        number: await clients.name_person(f"Person {number}", [library.face_ids[row] for row in rows])
        for number, rows in chosen.items()
    }
    return LabelledPeople(library, ids)


async def read_standing(base: Foundation, people: LabelledPeople) -> Standing:
    """What is known now."""
    library = people.library
    async with base.database.snapshot() as tx:
        given = await tx.rows(select(assignments.c.face_id).where(assignments.c.library_id == library.library_id))
        chosen = await tx.rows(
            select(prototypes.c.face_id, prototypes.c.person_id).where(prototypes.c.library_id == library.library_id)
        )
    assigned = np.zeros(len(library.drawn), dtype=np.bool_)
    assigned[[library.numbers[row.face_id] for row in given]] = True
    numbers = people.numbers
    return Standing(
        np.array([library.numbers[row.face_id] for row in chosen]),
        np.array([numbers[row.person_id] for row in chosen]),
        assigned,
    )


async def read_questions(base: Foundation, people: LabelledPeople) -> Pairs:
    """Everything that is being asked."""
    async with base.database.snapshot() as tx:
        rows = await tx.rows(
            select(suggestions.c.face_id, suggestions.c.person_id, suggestions.c.confidence).where(
                suggestions.c.library_id == people.library.library_id, suggestions.c.state == "PENDING"
            )
        )
    return make_pairs(people, [(row.face_id, row.person_id, row.confidence) for row in rows])


async def read_machine_assigned(base: Foundation, people: LabelledPeople) -> Pairs:
    """Everything that a machine has assigned."""
    async with base.database.snapshot() as tx:
        rows = await tx.rows(
            select(assignments.c.face_id, assignments.c.person_id, assignments.c.confidence).where(
                assignments.c.library_id == people.library.library_id, assignments.c.source == "MACHINE"
            )
        )
    return make_pairs(people, [(row.face_id, row.person_id, row.confidence) for row in rows])


def make_pairs(people: LabelledPeople, found: Sequence[tuple[UUID, UUID, float]]) -> Pairs:
    """Of (face, person, how surely)."""
    numbers = people.numbers
    return Pairs(
        np.array([people.library.numbers[face_id] for face_id, _, _ in found], dtype=np.int64),
        np.array([numbers[person_id] for _, person_id, _ in found], dtype=np.int64),
        np.array([confidence for _, _, confidence in found], dtype=np.float64),
    )
