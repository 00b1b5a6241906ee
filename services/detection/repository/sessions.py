"""SQL of ``detection_sessions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Row

from services.detection.domain.model import NewSession, PhotoOutcome, Session
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_detection import detection_sessions
from shared.errors import NotFound
from shared.jobs.repository import get_jobs

_COUNTERS: Final = {
    PhotoOutcome.FACES: detection_sessions.c.photos_faces,
    PhotoOutcome.NONE: detection_sessions.c.photos_none,
    PhotoOutcome.SKIPPED: detection_sessions.c.photos_skipped,
    PhotoOutcome.FAILED: detection_sessions.c.photos_failed,
}


async def insert_session(tx: Transaction, clock: Clock, new: NewSession) -> None:
    """Add a session without photos."""
    row = {**asdict(new), "photos": 0, "created_at": clock.now()}
    await tx.execute(insert(detection_sessions), row)


async def set_photo_counts(tx: Transaction, session_id: UUID, outcomes: Mapping[PhotoOutcome, int]) -> None:
    """Write how many photos a session has, and how many had which outcome."""
    counts = {column.name: outcomes.get(outcome, 0) for outcome, column in _COUNTERS.items()}
    await tx.execute(
        update(detection_sessions)
        .where(detection_sessions.c.session_id == session_id)
        .values(photos=sum(outcomes.values()), **counts)
    )


async def add_counts(
    tx: Transaction,
    session_id: UUID,
    outcomes: Mapping[PhotoOutcome, int],
    *,
    faces_added: int,
    faces_kept: int,
    faces_gone: int,
) -> None:
    """Count photos that had these outcomes, and their faces: new, found again, and not found again."""
    table = detection_sessions.c
    counts = {column.name: column + outcomes.get(outcome, 0) for outcome, column in _COUNTERS.items()}
    await tx.execute(
        update(detection_sessions)
        .where(table.session_id == session_id)
        .values(
            faces_added=table.faces_added + faces_added,
            faces_kept=table.faces_kept + faces_kept,
            faces_gone=table.faces_gone + faces_gone,
            **counts,
        )
    )


async def get_job_id(tx: Transaction, library_id: str, session_id: UUID) -> UUID:
    """The job of a session; raises :class:`NotFound`."""
    found: UUID | None = await tx.scalar(
        select(detection_sessions.c.job_id).where(
            detection_sessions.c.library_id == library_id, detection_sessions.c.session_id == session_id
        )
    )
    if found is None:
        raise NotFound("detection session", str(session_id))
    return found


async def get_session(tx: Transaction, library_id: str, session_id: UUID) -> Session:
    """One session with its job and counts; raises :class:`NotFound`."""
    row = await tx.one_or_none(
        select(detection_sessions).where(
            detection_sessions.c.library_id == library_id, detection_sessions.c.session_id == session_id
        )
    )
    if row is None:
        raise NotFound("detection session", str(session_id))
    return (await _complete(tx, library_id, [row]))[0]


async def list_sessions(tx: Transaction, library_id: str, request: PageRequest) -> Page[Session]:
    """Sessions of a library, newest first; a fixed number of statements."""
    statement = select(detection_sessions).where(detection_sessions.c.library_id == library_id)
    rows = await tx.rows(keyset(statement, request, [SortKey(detection_sessions.c.session_id, descending=True)]))
    page = make_page(rows, request, lambda row: row, lambda row: [row.session_id])
    return Page(await _complete(tx, library_id, page.items), page.next_token)


async def _complete(tx: Transaction, library_id: str, rows: Sequence[Row[Any]]) -> list[Session]:
    """Sessions of rows, with their jobs."""
    jobs = await get_jobs(tx, library_id, [row.job_id for row in rows])
    return [
        Session(
            session_id=row.session_id,
            library_id=row.library_id,
            job=jobs[row.job_id],
            redetect=row.redetect,
            options=row.options,
            retry_of=row.retry_of,
            photos=row.photos,
            outcomes=_outcomes(row),
            faces_added=row.faces_added,
            faces_kept=row.faces_kept,
            faces_gone=row.faces_gone,
            created_at=row.created_at,
        )
        for row in rows
    ]


def _outcomes(row: Row[Any]) -> dict[PhotoOutcome, int]:
    counted = {outcome: row._mapping[column.name] for outcome, column in _COUNTERS.items()}
    # A worker of the version before 0002 counts nothing; what it did shows once the job has ended.
    return {PhotoOutcome.PENDING: row.photos - sum(counted.values()), **counted}
