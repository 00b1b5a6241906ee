"""Jobs that the persons service leaves to the others when a person is forgotten: each takes the person out of its own tables.

A job names the receipt, by the job that forgets, and not the person, so that nothing has to be scrubbed from it afterwards. Who
is forgotten, and whether their faces go too, is read from ``receipts`` when the job runs; it may run twice, and finds what is
left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_persons import receipts
from shared.ids import IdFactory
from shared.jobs.model import Job, Json, NewJob
from shared.jobs.repository import create_job

FORGET_SUGGESTIONS: Final = "suggestions.forget_person"
FORGET_CENTROIDS: Final = "clustering.forget_person"
FORGET_FACES: Final = "detection.forget_faces"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Who is being forgotten: a person and all who became part of them; and whether their faces are deleted."""

    person_ids: list[UUID]
    delete_faces: bool


@dataclass(frozen=True, slots=True)
class Removal:
    """What a service has removed: rows by table, points of Qdrant by model, and anything else that it keeps."""

    rows: Mapping[str, int]
    points: Mapping[str, int]

    def to_json(self) -> Json:
        """As a job's result."""
        return {"rows": dict(self.rows), "points": dict(self.points)}

    @classmethod
    def from_json(cls, stored: Json) -> Removal:
        """As :meth:`to_json` made it; nothing of an empty one."""
        return cls(stored.get("rows", {}), stored.get("points", {}))

    def plus(self, other: Removal) -> Removal:
        """Both together."""
        return Removal(add_counts(self.rows, other.rows), add_counts(self.points, other.points))


NOTHING: Final = Removal({}, {})


async def leave_forgetting(
    tx: Transaction, ids: IdFactory, clock: Clock, kind: str, library_id: str, job_id: UUID, started_by: str
) -> Job:
    """Leave one service's part of the forgetting that ``job_id`` does to it; ``kind`` says whose."""
    spec = {"forgets": str(job_id)}
    job = NewJob(library_id=library_id, kind=kind, unit="row", slices=[spec], created_by=started_by, spec=spec)
    return await create_job(tx, job, ids, clock)


async def read_forgotten(tx: Transaction, library_id: str, job_id: UUID) -> Forgotten:
    """Who is forgotten by a job; nobody if there is no such receipt."""
    rows = await tx.rows(
        select(receipts.c.person_id, receipts.c.delete_faces)
        .where(receipts.c.library_id == library_id, receipts.c.job_id == job_id)
        .order_by(receipts.c.person_id)
    )
    return Forgotten([row.person_id for row in rows], any(row.delete_faces for row in rows))


def find_forgetting(spec: Json) -> UUID:
    """The job that forgets, of the spec of one that does a part of it."""
    return UUID(spec["forgets"])


def add_counts(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, of both together."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}
