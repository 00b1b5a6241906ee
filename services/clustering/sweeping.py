"""Gives back the room of runs that are over: of those that were cancelled or failed nobody else does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import structlog

from services.clustering.repository.workspace import list_workspaces, remove_workspaces
from shared.db.engine import DATABASE_FAILURES, Database, Transaction
from shared.jobs.repository import find_unended

log = structlog.get_logger(__name__)

EVERY_S = 600.0


async def sweep_forever(database: Database, scratch: Path) -> None:
    """Look every ten minutes; any number of workers may, also in one folder."""
    while True:
        try:
            async with database.transaction() as tx:
                over = await sweep(tx, scratch)
            if over:
                log.info("workspaces_swept", count=len(over))
        except DATABASE_FAILURES as error:
            log.warning("workspaces_not_swept", error=type(error).__name__)
        await asyncio.sleep(EVERY_S)


async def sweep(tx: Transaction, scratch: Path) -> list[UUID]:
    """Remove the workspaces of jobs that have ended or are unknown; answers their ids."""
    found = await asyncio.to_thread(lambda: list(list_workspaces(scratch)))
    if not found:
        return []
    unended = await find_unended(tx, found)
    over = [job_id for job_id in found if job_id not in unended]
    await asyncio.to_thread(remove_workspaces, scratch, over)
    return over
