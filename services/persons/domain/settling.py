"""Everything derived from a person's faces, brought up to date: summary, prototypes, and what Qdrant shows of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from uuid import UUID

from services.persons.domain.model import PersonsDeps
from services.persons.domain.prototyping import refresh_prototypes
from services.persons.repository.persons import (
    MoveCounts,
    count_moves,
    lock_persons,
    refresh_summaries,
    show_chosen_covers,
)
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.db.people_queue import queue_people

SETTLED_AT_ONCE: Final = 8
"""Up to so many faces a person is settled in the transaction, and whoever has no prototype: each face counts for much there,
and nobody is to be unknown for a moment after being named. Of more faces one more changes little, and choosing among them would
be most of what assigning one costs."""


async def settle_change(
    tx: Transaction,
    deps: PersonsDeps,
    library_id: str,
    change_id: UUID,
    face_ids: Collection[UUID],
    touched: Collection[UUID] = (),
    *,
    part: bool = False,
) -> None:
    """Follow what a change did to ``face_ids``: all it has done, or, with ``part``, what it has just added; and to the fields
    of the persons ``touched``. All persons are locked.

    Counts are right at once, and so are covers that were chosen. Everything else of persons with many faces follows within
    moments. The last thing a transaction does: the queue of people and the outbox are locked after all else.
    """
    counts = await count_moves(tx, change_id, face_ids if part else None)
    await _settle(tx, deps, library_id, counts, touched, face_ids)


async def settle_people(tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Collection[UUID]) -> None:
    """Follow what was done to the fields of locked persons, as :func:`settle_change` does."""
    await _settle(tx, deps, library_id, MoveCounts({}, set()), person_ids, ())


async def settle_locked(tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Collection[UUID]) -> None:
    """Make what is derived of locked persons what their faces say, however many those are."""
    flipped = await _refresh(tx, deps, library_id, person_ids)
    await queue_faces(tx, deps.clock, library_id, flipped)


async def _settle(
    tx: Transaction,
    deps: PersonsDeps,
    library_id: str,
    moved: MoveCounts,
    touched: Collection[UUID],
    face_ids: Collection[UUID],
) -> None:
    counts = moved.faces
    if touched:
        # Locked already: this reads them as they are now.
        people = await lock_persons(tx, library_id, touched)
        counts = {**counts, **{person_id: person.face_count for person_id, person in people.items()}}
    small = {person_id for person_id, count in counts.items() if count <= SETTLED_AT_ONCE} | moved.bare
    many = counts.keys() - small
    flipped = await _refresh(tx, deps, library_id, small)
    if many & set(touched):
        await show_chosen_covers(tx, many & set(touched))
    await queue_people(tx, deps.clock, library_id, many)
    await queue_faces(tx, deps.clock, library_id, {*face_ids, *flipped})


async def _refresh(tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Collection[UUID]) -> set[UUID]:
    """Answers with the faces that became a prototype or ceased to be one."""
    if not person_ids:
        return set()
    people = sorted(person_ids)
    await refresh_summaries(tx, people)
    return await refresh_prototypes(tx, deps, library_id, people)
