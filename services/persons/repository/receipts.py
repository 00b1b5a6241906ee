"""SQL of ``receipts``: who was forgotten, by which job, and where nothing of them was found any more.

A receipt outlives all else of a person, for ever: by it a second request is answered as the first was, and nobody who was
forgotten can be brought back. Whoever became part of the person has one too, of the same job.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Row

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_persons import receipts


@dataclass(frozen=True, slots=True)
class StoreReceipt:
    """One store: how much was removed from it, and when it was read back and held nothing of the person."""

    store: str
    deleted: int
    verified_at: datetime

    def to_json(self) -> dict[str, Any]:
        """As it is stored, and as the job's result shows it."""
        return {"store": self.store, "deleted": self.deleted, "verified_at": self.verified_at.isoformat()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> StoreReceipt:
        """As :meth:`to_json` made it."""
        return cls(stored["store"], stored["deleted"], datetime.fromisoformat(stored["verified_at"]))


@dataclass(frozen=True, slots=True)
class Receipt:
    """One row of ``receipts``. ``completed_at`` None: the job is not through."""

    person_id: UUID
    job_id: UUID
    delete_faces: bool
    created_at: datetime
    stores: tuple[StoreReceipt, ...]
    completed_at: datetime | None


async def find_receipts(tx: Transaction, person_ids: Collection[UUID]) -> dict[UUID, Receipt]:
    """The receipts of those of these persons who were forgotten, or are being."""
    if not person_ids:
        return {}
    rows = await tx.rows(select(receipts).where(receipts.c.person_id == func.any(list(person_ids))))
    return {row.person_id: _receipt(row) for row in rows}


async def find_receipt(tx: Transaction, library_id: str, person_id: UUID) -> Receipt | None:
    """The receipt of a person of this library, if there is one."""
    row = await tx.one_or_none(
        select(receipts).where(receipts.c.library_id == library_id, receipts.c.person_id == person_id)
    )
    return None if row is None else _receipt(row)


async def insert_receipts(
    tx: Transaction, clock: Clock, library_id: str, person_ids: Sequence[UUID], job_id: UUID, *, delete_faces: bool
) -> None:
    """Begin the receipts of locked persons, all of one job."""
    now = clock.now()
    await tx.execute(
        insert(receipts),
        [
            {
                "person_id": person_id,
                "library_id": library_id,
                "job_id": job_id,
                "delete_faces": delete_faces,
                "created_at": now,
            }
            for person_id in sorted(person_ids)
        ],
    )


async def lock_receipts(tx: Transaction, library_id: str, job_id: UUID) -> list[UUID]:
    """Whose receipts are of a job, locked until the transaction ends."""
    rows = await tx.rows(
        select(receipts.c.person_id)
        .where(receipts.c.library_id == library_id, receipts.c.job_id == job_id)
        .order_by(receipts.c.person_id)
        .with_for_update()
    )
    return [row.person_id for row in rows]


async def hand_over_receipts(tx: Transaction, person_ids: Sequence[UUID], job_id: UUID) -> None:
    """Let another job go on with locked receipts."""
    await tx.execute(update(receipts).where(receipts.c.person_id == func.any(list(person_ids))).values(job_id=job_id))


async def complete_receipts(
    tx: Transaction, clock: Clock, library_id: str, job_id: UUID, stores: Sequence[StoreReceipt]
) -> None:
    """Enter that every store was read back."""
    await tx.execute(
        update(receipts)
        .where(receipts.c.library_id == library_id, receipts.c.job_id == job_id)
        .values(stores=[store.to_json() for store in stores], completed_at=clock.now())
    )


def _receipt(row: Row[Any]) -> Receipt:
    return Receipt(
        person_id=row.person_id,
        job_id=row.job_id,
        delete_faces=row.delete_faces,
        created_at=row.created_at,
        stores=tuple(StoreReceipt.from_json(store) for store in row.stores or ()),
        completed_at=row.completed_at,
    )
