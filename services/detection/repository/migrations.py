"""SQL of ``model_migrations``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row

from services.detection.domain.migration import Migration
from services.detection.domain.shadow_report import ShadowReport
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.named_locks import lock_until_end
from shared.db.tables_detection import model_migrations as table
from shared.db.tables_shared import job_slices
from shared.errors import NotFound
from shared.ids import IdFactory
from shared.jobs.model import Job
from shared.jobs.repository import get_job


async def lock_migrations(tx: Transaction, library_id: str) -> None:
    """Let nobody else start, cut over or roll back a migration of this library before the transaction ends."""
    await lock_until_end(tx, f"model_migrations/{library_id}")


async def get_migration(tx: Transaction, library_id: str, migration_id: UUID) -> Migration:
    """One migration with its job. Raises :class:`NotFound`."""
    row = await tx.one_or_none(
        select(table).where(table.c.library_id == library_id, table.c.migration_id == migration_id)
    )
    if row is None:
        raise NotFound("model migration", str(migration_id))
    return _migration(row, await get_job(tx, library_id, row.job_id))


async def find_migration(tx: Transaction, library_id: str, from_version: str, to_version: str) -> Migration | None:
    """The migration between two models of a library, if there was one."""
    row = await tx.one_or_none(
        select(table).where(
            table.c.library_id == library_id, table.c.from_version == from_version, table.c.to_version == to_version
        )
    )
    return None if row is None else _migration(row, await get_job(tx, library_id, row.job_id))


async def find_latest_cut_over(tx: Transaction, library_id: str, to_version: str) -> Migration | None:
    """The migration by which a model became the active one, if it was by one."""
    row = await tx.one_or_none(
        select(table)
        .where(table.c.library_id == library_id, table.c.to_version == to_version, table.c.cut_over_at.is_not(None))
        .order_by(table.c.cut_over_at.desc())
        .limit(1)
    )
    return None if row is None else _migration(row, await get_job(tx, library_id, row.job_id))


async def find_versions(tx: Transaction, library_id: str, job_id: UUID) -> tuple[str, str]:
    """Between which models the migration is whose job this is: a job that has not ended is its migration's latest."""
    row = (
        await tx.execute(
            select(table.c.from_version, table.c.to_version).where(
                table.c.library_id == library_id, table.c.job_id == job_id
            )
        )
    ).one()
    return row.from_version, row.to_version


async def write_migration(
    tx: Transaction, clock: Clock, ids: IdFactory, library_id: str, from_version: str, to_version: str, job: Job
) -> Migration:
    """Add a migration with its job, or give the one between these models a new job; its report is of the job before."""
    row = {
        "migration_id": ids.new_uuid(),
        "library_id": library_id,
        "from_version": from_version,
        "to_version": to_version,
        "job_id": job.job_id,
        "created_at": clock.now(),
    }
    statement = insert(table).values(row)
    written = (
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["library_id", "from_version", "to_version"],
                set_={"job_id": statement.excluded.job_id, "report": None, "version": table.c.version + 1},
            ).returning(*table.c)
        )
    ).one()
    return _migration(written, job)


async def write_report(tx: Transaction, library_id: str, job_id: UUID, report: ShadowReport) -> None:
    """Keep the report of a job with its migration."""
    await tx.execute(
        update(table)
        .where(table.c.library_id == library_id, table.c.job_id == job_id)
        .values(report=report.describe(), version=table.c.version + 1)
    )


async def mark_cut_over(tx: Transaction, clock: Clock, migration: Migration) -> None:
    """Note that the library has moved. A migration the other way counts as rolled back by it."""
    await tx.execute(
        update(table)
        .where(table.c.migration_id == migration.migration_id)
        .values(cut_over_at=clock.now(), version=table.c.version + 1)
    )
    await tx.execute(
        update(table)
        .where(
            table.c.library_id == migration.library_id,
            table.c.from_version == migration.to_version,
            table.c.to_version == migration.from_version,
            table.c.cut_over_at.is_not(None),
        )
        .values(cut_over_at=None, version=table.c.version + 1)
    )


async def mark_rolled_back(tx: Transaction, migration: Migration) -> None:
    """Note that the library has moved back."""
    await tx.execute(
        update(table)
        .where(table.c.migration_id == migration.migration_id)
        .values(cut_over_at=None, version=table.c.version + 1)
    )


async def all_slices_embedded(tx: Transaction, job_id: UUID) -> bool:
    """Whether no slice of a job has faces left to embed, by their checkpoints."""
    embedded = job_slices.c.checkpoint.contains({"embedded": True})
    left: int = await tx.scalar(select(func.count()).where(job_slices.c.job_id == job_id, ~embedded))
    return left == 0


def _migration(row: Row[Any], job: Job) -> Migration:
    return Migration(
        migration_id=row.migration_id,
        library_id=row.library_id,
        from_version=row.from_version,
        to_version=row.to_version,
        job=job,
        report=ShadowReport.parse(row.report) if row.report is not None else None,
        cut_over_at=row.cut_over_at,
        version=row.version,
        created_at=row.created_at,
    )
