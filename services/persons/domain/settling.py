"""Everything derived from a person's faces, brought up to date: summary, prototypes, and what Qdrant shows of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from services.persons.domain.model import PersonsDeps
from services.persons.domain.prototyping import refresh_prototypes
from services.persons.repository.persons import count_moves, lock_persons, refresh_summaries
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.db.people_queue import queue_people

SETTLED_AT_ONCE: Final = 32
"""Up to so many faces a person is settled in the transaction: each face counts for much there, and reading them costs little.
Of more faces one more changes little, and choosing among them would be most of what assigning one costs."""


async def settle_change(
    tx: Transaction, deps: PersonsDeps, library_id: str, change_id: UUID, face_ids: Iterable[UUID]
) -> None:
    """Follow what a change did to ``face_ids``. All persons it touched are locked.

    Counts are right at once. Dates, cover and prototypes of persons with many faces follow within moments.
    """
    counts = await count_moves(tx, change_id)
    small = sorted(person_id for person_id, count in counts.items() if count <= SETTLED_AT_ONCE)
    flipped: set[UUID] = set()
    if small:
        await refresh_summaries(tx, small)
        flipped = await refresh_prototypes(tx, deps, library_id, small)
    await queue_people(tx, deps.clock, library_id, counts.keys() - set(small))
    await queue_faces(tx, deps.clock, library_id, {*face_ids, *flipped})


async def settle_people(tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Iterable[UUID]) -> None:
    """Bring persons up to date, whatever happened to their faces; ones that are gone are passed over.

    No entry in the ledger: nobody changed his mind about a person.
    """
    people = sorted(await lock_persons(tx, library_id, sorted(person_ids)))
    await refresh_summaries(tx, people)
    flipped = await refresh_prototypes(tx, deps, library_id, people)
    await queue_faces(tx, deps.clock, library_id, flipped)
