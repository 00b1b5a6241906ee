"""Jobs that any service may leave to the suggestions service: let open questions follow people, and ask about given pairs.

Persons are the persons service's, questions to people are the suggestions service's. Whoever merges, deletes or undoes takes
something away from under questions; the job is created in the same transaction, so it is neither forgotten nor begun too
early. It names persons and not what became of them: it reads how they stand when it runs, so that jobs may run late, twice
and in any order, and all end in the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.ids import IdFactory
from shared.jobs.model import NewJob
from shared.jobs.repository import create_job

FOLLOW_PEOPLE: Final = "suggestions.follow_people"
ASK_PAIRS: Final = "suggestions.ask_pairs"
_SLICE_PERSONS = 200
_SLICE_PAIRS = 200


@dataclass(frozen=True, slots=True)
class PairToAsk:
    """A face a machine takes for a person and may not assign to them; ``confidence`` 0..1 that it is them."""

    face_id: UUID
    person_id: UUID
    confidence: float


async def follow_people_later(
    tx: Transaction, ids: IdFactory, clock: Clock, library_id: str, person_ids: Collection[UUID], started_by: str
) -> None:
    """Have the open questions about these persons, and about all who became part of them, stand as the persons do now.

    To be called with everybody whose status changed (merged, un-merged, deleted, undeleted) and with everybody who lost faces
    that questions may rest on (prototypes). A question about a person who became part of another is about that other; one
    whose person is gone, that is answered, asked already or rests on a face that is not its person's any more, expires; and
    what went that way comes back once the reason is undone, unless it was answered meanwhile. Nothing for nobody.
    """
    if not person_ids:
        return
    names = [str(person_id) for person_id in sorted(person_ids)]
    slices = [{"person_ids": names[at : at + _SLICE_PERSONS]} for at in range(0, len(names), _SLICE_PERSONS)]
    job = NewJob(
        library_id=library_id, kind=FOLLOW_PEOPLE, unit="suggestion", slices=slices, created_by=started_by, spec={}
    )
    await create_job(tx, job, ids, clock)


async def ask_pairs_later(
    tx: Transaction, ids: IdFactory, clock: Clock, library_id: str, pairs: Sequence[PairToAsk], started_by: str
) -> None:
    """Have people asked about faces that a machine may not assign, e.g. as the person has another face in the photo.

    Left out when the job runs: a face that has a person or is not ACTIVE, and a pair that was excluded or rejected. Nothing
    for no pair.
    """
    if not pairs:
        return
    rows = [[str(pair.face_id), str(pair.person_id), pair.confidence] for pair in pairs]
    slices = [{"pairs": rows[at : at + _SLICE_PAIRS]} for at in range(0, len(rows), _SLICE_PAIRS)]
    job = NewJob(
        library_id=library_id,
        kind=ASK_PAIRS,
        unit="suggestion",
        slices=slices,
        created_by=started_by,
        spec={},
        total=len(rows),
    )
    await create_job(tx, job, ids, clock)
