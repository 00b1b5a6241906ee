"""SQL of ``auto_finds`` and ``discovery_settings``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_persons import LIVING, persons
from shared.db.tables_shared import jobs
from shared.db.tables_suggestions import auto_finds, discovery_settings
from shared.jobs.model import FINAL_STATES


@dataclass(frozen=True, slots=True)
class AutoFind:
    """A person's accepted questions since the last automatic job, and when that was; None if there was none."""

    person_id: UUID
    accepted: int
    started_at: datetime | None


async def find_auto_find_more_after(tx: Transaction, library_id: str) -> int | None:
    """What a library has said; None if nothing."""
    found: int | None = await tx.scalar(
        select(discovery_settings.c.auto_find_more_after).where(discovery_settings.c.library_id == library_id)
    )
    return found


async def store_auto_find_more_after(
    tx: Transaction, clock: Clock, library_id: str, accepts: int, updated_by: str
) -> None:
    """What a library says from now on."""
    said = {"auto_find_more_after": accepts, "updated_at": clock.now(), "updated_by": updated_by}
    insertion = insert(discovery_settings).values(library_id=library_id, **said)
    await tx.execute(insertion.on_conflict_do_update(index_elements=["library_id"], set_=said))


async def delete_discovery_settings(tx: Transaction, library_id: str) -> None:
    """A library says nothing any more."""
    await tx.execute(delete(discovery_settings).where(discovery_settings.c.library_id == library_id))


async def add_accepted(tx: Transaction, library_id: str, accepted: Mapping[UUID, int]) -> list[AutoFind]:
    """Add to the counts of persons, in one statement; their rows are locked, in order of id."""
    insertion = insert(auto_finds).values(
        [
            {"person_id": person_id, "library_id": library_id, "accepted": accepted[person_id]}
            for person_id in sorted(accepted)
        ]
    )
    rows = await tx.rows(
        insertion.on_conflict_do_update(
            index_elements=["person_id"], set_={"accepted": auto_finds.c.accepted + insertion.excluded.accepted}
        ).returning(auto_finds.c.person_id, auto_finds.c.accepted, auto_finds.c.started_at)
    )
    return [AutoFind(row.person_id, row.accepted, row.started_at) for row in rows]


async def list_free_persons(tx: Transaction, person_ids: Collection[UUID]) -> list[UUID]:
    """Those of counted persons, by id, who are neither merged nor deleted and whose last automatic job has ended."""
    ended = or_(jobs.c.job_id.is_(None), jobs.c.state.in_([state.value for state in FINAL_STATES]))
    rows = await tx.rows(
        select(auto_finds.c.person_id)
        .join(persons, persons.c.person_id == auto_finds.c.person_id)
        .outerjoin(jobs, jobs.c.job_id == auto_finds.c.job_id)
        .where(auto_finds.c.person_id == func.any(list(person_ids)), LIVING, ended)
        .order_by(auto_finds.c.person_id)
    )
    return [row.person_id for row in rows]


async def begin_auto_finds(tx: Transaction, clock: Clock, person_ids: Collection[UUID], job_id: UUID) -> None:
    """Start the counts of persons, whose rows are locked, anew with a job."""
    await tx.execute(
        update(auto_finds)
        .where(auto_finds.c.person_id == func.any(list(person_ids)))
        .values(accepted=0, job_id=job_id, started_at=clock.now())
    )
