"""SQL of ``detection_sessions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Row

from services.detection.domain.model import Session
from services.detection.repository.session_photos import count_outcomes
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_detection import detection_sessions
from shared.errors import NotFound
from shared.jobs.repository import get_jobs


async def insert_session(
    tx: Transaction,
    clock: Clock,
    library_id: str,
    session_id: UUID,
    job_id: UUID,
    redetect: bool,
    options: Mapping[str, Any],
) -> None:
    """Add a session without photos."""
    row = {
        "session_id": session_id,
        "library_id": library_id,
        "job_id": job_id,
        "redetect": redetect,
        "options": dict(options),
        "photos": 0,
        "created_at": clock.now(),
    }
    await tx.execute(insert(detection_sessions), row)


async def set_photo_count(tx: Transaction, session_id: UUID, photos: int) -> None:
    """Write how many photos a session has."""
    await tx.execute(
        update(detection_sessions).where(detection_sessions.c.session_id == session_id).values(photos=photos)
    )


async def add_face_counts(tx: Transaction, session_id: UUID, added: int, kept: int, gone: int) -> None:
    """Count faces that were new, found again, and not found again."""
    table = detection_sessions.c
    await tx.execute(
        update(detection_sessions)
        .where(table.session_id == session_id)
        .values(
            faces_added=table.faces_added + added,
            faces_kept=table.faces_kept + kept,
            faces_gone=table.faces_gone + gone,
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
    """Sessions of rows, with their jobs and counts."""
    jobs = await get_jobs(tx, library_id, [row.job_id for row in rows])
    outcomes = await count_outcomes(tx, [row.session_id for row in rows])
    return [
        Session(
            session_id=row.session_id,
            library_id=row.library_id,
            job=jobs[row.job_id],
            redetect=row.redetect,
            photos=row.photos,
            outcomes=outcomes.get(row.session_id, {}),
            faces_added=row.faces_added,
            faces_kept=row.faces_kept,
            faces_gone=row.faces_gone,
            created_at=row.created_at,
        )
        for row in rows
    ]
