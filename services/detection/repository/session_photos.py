"""SQL of ``session_photos``: which photos a session has, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, Select, Text, Uuid, and_, case, cast, func, literal, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row

from services.detection.domain.model import (
    AssetDetection,
    PendingPhoto,
    PhotoFailed,
    PhotoLook,
    PhotoOutcome,
    SessionPhoto,
    TimeSpan,
)
from services.detection.repository.conditions import within
from services.detection.repository.rows import Types, table_of
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_detection import assets, session_photos
from shared.jobs.model import ItemFailure

_DETECTED = (AssetDetection.FACES.value, AssetDetection.NONE.value)
_OUTCOME: Types = {
    "asset_id": Text(),
    "outcome": Text(),
    "face_count": Integer(),
    "failure_reason": Text(),
    "failure_message": Text(),
}


async def fix_listed_photos(
    tx: Transaction,
    library_id: str,
    session_id: UUID,
    asset_ids: Sequence[str],
    *,
    redetect: bool,
    slice_size: int,
) -> None:
    """Put these photos into a session, in one statement."""
    chosen = _select_photos(library_id, session_id, redetect, slice_size)
    await _insert_photos(tx, chosen.where(assets.c.asset_id == func.any(list(asset_ids))))


async def fix_matching_photos(
    tx: Transaction,
    library_id: str,
    session_id: UUID,
    detections: Sequence[str],
    captured: TimeSpan,
    id_prefix: str,
    *,
    redetect: bool,
    slice_size: int,
) -> None:
    """Put the photos that pass a filter into a session, in one statement; ``detections`` empty = all."""
    chosen = _select_photos(library_id, session_id, redetect, slice_size).where(*within(assets.c.captured_at, captured))
    if detections:
        chosen = chosen.where(assets.c.detection.in_(detections))
    if id_prefix:
        chosen = chosen.where(assets.c.asset_id.startswith(id_prefix, autoescape=True))
    await _insert_photos(tx, chosen)


def count_slices(pending: int, slice_size: int) -> int:
    """How many slices so many photos to look at make, at least one.

    The first has half as many photos as the others: a worker runs two at once, and if both ended at the same time, the
    detector would wait for the next two.
    """
    return max(1, -(-(pending + slice_size // 2) // slice_size))


def _select_photos(library_id: str, session_id: UUID, redetect: bool, slice_size: int) -> Select[Any]:
    pending = true() if redetect else assets.c.detection.not_in(_DETECTED)
    # Numbered among their like, so that every slice after the first has the same number of photos to look at.
    number = func.row_number().over(partition_by=pending, order_by=assets.c.asset_id)
    return select(
        literal(session_id, Uuid()),
        assets.c.asset_id,
        cast((number - 1 + slice_size // 2) // slice_size, Integer),
        case((pending, PhotoOutcome.PENDING.value), else_=PhotoOutcome.SKIPPED.value),
    ).where(assets.c.library_id == library_id)


async def fix_failed_photos(
    tx: Transaction, library_id: str, session_id: UUID, retry_of: UUID, *, slice_size: int
) -> None:
    """Put the photos that failed in another session into a session, in one statement.

    Those that were detected since are SKIPPED, whether or not the session redetects; those whose asset is gone are left out.
    """
    failed = select(session_photos.c.asset_id).where(
        session_photos.c.session_id == retry_of, session_photos.c.outcome == PhotoOutcome.FAILED.value
    )
    chosen = _select_photos(library_id, session_id, redetect=False, slice_size=slice_size)
    await _insert_photos(tx, chosen.where(assets.c.asset_id.in_(failed)))


async def _insert_photos(tx: Transaction, chosen: Select[Any]) -> None:
    await tx.execute(insert(session_photos).from_select(["session_id", "asset_id", "slice", "outcome"], chosen))


async def count_outcomes(tx: Transaction, session_id: UUID) -> Counter[PhotoOutcome]:
    """How many photos of a session had which outcome; reads every one of them."""
    rows = await tx.rows(
        select(session_photos.c.outcome, func.count().label("photos"))
        .where(session_photos.c.session_id == session_id)
        .group_by(session_photos.c.outcome)
    )
    return Counter({PhotoOutcome(row.outcome): row.photos for row in rows})


async def list_pending_photos(tx: Transaction, library_id: str, session_id: UUID, ordinal: int) -> list[PendingPhoto]:
    """The photos of a slice that are still to be looked at, those no detector broke off at first; at most a slice's size."""
    rows = await tx.rows(
        select(session_photos.c.asset_id, session_photos.c.breaks, assets.c.uri)
        .outerjoin(assets, and_(assets.c.library_id == library_id, assets.c.asset_id == session_photos.c.asset_id))
        .where(
            session_photos.c.session_id == session_id,
            session_photos.c.slice == ordinal,
            session_photos.c.outcome == PhotoOutcome.PENDING.value,
        )
        .order_by(session_photos.c.breaks, session_photos.c.asset_id)
    )
    return [PendingPhoto(row.asset_id, row.uri, row.breaks) for row in rows]


async def add_breaks(tx: Transaction, session_id: UUID, asset_ids: Sequence[str], *, alone: bool) -> dict[str, int]:
    """Count a detector's breaking off with these photos in hand; answers the counts of those still to be looked at.

    The first break counts 1, and so do all further ones until the photo is tried ``alone``.
    """
    breaks = session_photos.c.breaks
    rows = await tx.rows(
        update(session_photos)
        .where(
            session_photos.c.session_id == session_id,
            session_photos.c.asset_id == func.any(list(asset_ids)),
            session_photos.c.outcome == PhotoOutcome.PENDING.value,
        )
        .values(breaks=breaks + 1 if alone else func.greatest(breaks, 1))
        .returning(session_photos.c.asset_id, breaks)
    )
    return {row.asset_id: row.breaks for row in rows}


async def write_outcomes(tx: Transaction, session_id: UUID, looks: Sequence[PhotoLook]) -> Counter[PhotoOutcome]:
    """Write what became of some pending photos of a session, in one statement; answers how many had which outcome."""
    seen = table_of("seen", _OUTCOME, [_outcome_row(look) for look in looks])
    await tx.execute(
        update(session_photos)
        .where(session_photos.c.session_id == session_id, session_photos.c.asset_id == seen.c.asset_id)
        .values(
            outcome=seen.c.outcome,
            face_count=seen.c.face_count,
            failure_reason=seen.c.failure_reason,
            failure_message=seen.c.failure_message,
        )
    )
    return Counter(_outcome_of(look) for look in looks)


async def list_session_photos(
    tx: Transaction, session_id: UUID, request: PageRequest, outcomes: Sequence[PhotoOutcome]
) -> Page[SessionPhoto]:
    """What became of each photo of a session, by asset id; ``outcomes`` empty = all."""
    statement = select(session_photos).where(session_photos.c.session_id == session_id)
    if outcomes:
        statement = statement.where(session_photos.c.outcome.in_([outcome.value for outcome in outcomes]))
    rows = await tx.rows(keyset(statement, request, [SortKey(session_photos.c.asset_id)]))
    return make_page(rows, request, _session_photo, lambda row: [row.asset_id])


def _outcome_row(look: PhotoLook) -> tuple[object, ...]:
    if isinstance(look, PhotoFailed):
        return (look.asset_id, _outcome_of(look).value, 0, look.reason, look.message)
    return (look.asset_id, _outcome_of(look).value, len(look.faces), None, None)


def _outcome_of(look: PhotoLook) -> PhotoOutcome:
    if isinstance(look, PhotoFailed):
        return PhotoOutcome.FAILED
    return PhotoOutcome.FACES if look.faces else PhotoOutcome.NONE


def _session_photo(row: Row[Any]) -> SessionPhoto:
    failed = row.outcome == PhotoOutcome.FAILED
    return SessionPhoto(
        asset_id=row.asset_id,
        outcome=PhotoOutcome(row.outcome),
        face_count=row.face_count,
        failure=ItemFailure(row.asset_id, row.failure_reason, row.failure_message or "") if failed else None,
    )
