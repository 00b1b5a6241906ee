"""Everything derived from a person's faces, brought up to date: summary, prototypes, and what Qdrant shows of them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from services.persons.domain.model import PersonsDeps
from services.persons.domain.prototyping import refresh_prototypes
from services.persons.repository.persons import lock_persons, refresh_summaries
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces


async def settle_people(
    tx: Transaction, deps: PersonsDeps, library_id: str, face_ids: Iterable[UUID], person_ids: Iterable[UUID]
) -> None:
    """Follow a change of ``face_ids`` between these locked persons."""
    people = sorted(person_ids)
    await refresh_summaries(tx, people)
    flipped = await refresh_prototypes(tx, deps, library_id, people)
    await queue_faces(tx, deps.clock, library_id, {*face_ids, *flipped})


async def refresh_people(tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Iterable[UUID]) -> None:
    """Follow what happened to these persons' faces elsewhere: photos that were deleted, or are of another time.

    No entry in the ledger: nobody changed his mind about a person. Persons that are gone are passed over.
    """
    people = sorted(person_ids)
    await lock_persons(tx, library_id, people)
    await settle_people(tx, deps, library_id, (), people)
