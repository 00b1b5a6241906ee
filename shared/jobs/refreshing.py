"""A job that any service may leave to the persons service: bring what is derived of people up to date.

Photos belong to detection, people to persons. Whoever deletes a photo, or moves it in time, takes something away from under
people; the job is created in the same transaction, so it is neither forgotten nor begun too early.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from uuid import UUID

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.ids import IdFactory
from shared.jobs.model import NewJob
from shared.jobs.repository import create_job

REFRESH_PEOPLE: Final = "persons.refresh_people"
_SLICE_PERSONS = 200


async def refresh_people_later(
    tx: Transaction, ids: IdFactory, clock: Clock, library_id: str, person_ids: Collection[UUID], started_by: str
) -> None:
    """Have face counts, dates, covers and prototypes of these persons made what their faces say; nothing for nobody."""
    if not person_ids:
        return
    names = [str(person_id) for person_id in sorted(person_ids)]
    slices = [{"person_ids": names[at : at + _SLICE_PERSONS]} for at in range(0, len(names), _SLICE_PERSONS)]
    job = NewJob(
        library_id=library_id,
        kind=REFRESH_PEOPLE,
        unit="person",
        slices=slices,
        created_by=started_by,
        spec={},
        total=len(names),
    )
    await create_job(tx, job, ids, clock)
