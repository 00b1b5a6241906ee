"""Taking a person who is forgotten out of what is kept of jobs: specs, checkpoints, results, errors and failures of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Column, Table, Text, cast, exists, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from shared.db.engine import Transaction
from shared.db.tables_shared import job_failures, job_slices, jobs
from shared.jobs.model import FINAL_STATES
from shared.traces import Traces

_TEXTS: Final[dict[Table, tuple[Column[Any], ...]]] = {
    jobs: (jobs.c.spec, jobs.c.result, jobs.c.error_message),
    job_slices: (job_slices.c.spec, job_slices.c.checkpoint, job_slices.c.result),
    job_failures: (job_failures.c.item_id, job_failures.c.message),
}


async def find_jobs_about(
    tx: Transaction, library_id: str, traces: Traces, after: UUID | None, limit: int
) -> list[UUID]:
    """The next jobs, by id, that may say something of the person; reads every job of the library for it."""
    statement = select(jobs.c.job_id).where(
        jobs.c.library_id == library_id,
        or_(
            _says(jobs, traces),
            exists().where(job_slices.c.job_id == jobs.c.job_id, _says(job_slices, traces)),
            exists().where(job_failures.c.job_id == jobs.c.job_id, _says(job_failures, traces)),
        ),
    )
    if after is not None:
        statement = statement.where(jobs.c.job_id > after)
    rows = await tx.rows(statement.order_by(jobs.c.job_id).limit(limit))
    return [row.job_id for row in rows]


async def scrub_jobs(tx: Transaction, job_ids: Sequence[UUID], traces: Traces) -> dict[str, int]:
    """Take the person out of these jobs; answers how many rows of each table that changed.

    Ids give way to one that nothing has, so that a job that still runs passes the person over. Names are looked for in jobs
    that have ended: a word of one that runs may be a word to its handler.
    """
    states = await tx.rows(
        select(jobs.c.job_id, jobs.c.state)
        .where(jobs.c.job_id == func.any(list(job_ids)))
        .order_by(jobs.c.job_id)
        .with_for_update(key_share=True)
    )
    ended = {row.job_id for row in states if row.state in FINAL_STATES}
    return {table.name: await _scrub(tx, table, job_ids, ended, traces) for table in _TEXTS}


async def count_jobs_about(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> dict[str, int]:
    """How many rows of each table hold the id of one of these persons; reads every job of the library."""
    traces = Traces.of(person_ids)
    counts = {}
    for table in _TEXTS:
        statement = select(func.count()).select_from(table).where(_says(table, traces))
        if table is not jobs:
            statement = statement.join(jobs, jobs.c.job_id == table.c.job_id)
        counts[table.name] = await tx.scalar(statement.where(jobs.c.library_id == library_id))
    return counts


async def _scrub(tx: Transaction, table: Table, job_ids: Sequence[UUID], ended: set[UUID], traces: Traces) -> int:
    rows = await tx.rows(
        select(table).where(table.c.job_id == func.any(list(job_ids)), _says(table, traces)).with_for_update()
    )
    changed = 0
    for row in rows:
        known = traces if row.job_id in ended else traces.ids_alone
        values = {column.name: known.clean_json(getattr(row, column.name)) for column in _TEXTS[table]}
        differing = {name: value for name, value in values.items() if value != getattr(row, name)}
        if differing:
            keys = [key == getattr(row, key.name) for key in table.primary_key.columns]
            await tx.execute(update(table).where(*keys).values(differing))
            changed += 1
    return changed


def _says(table: Table, traces: Traces) -> ColumnElement[bool]:
    return or_(*(cast(column, Text).regexp_match(traces.sql_pattern, "i") for column in _TEXTS[table]))
