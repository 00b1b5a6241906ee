"""SQL of ``assets``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import SmallInteger, Text, case, func, literal, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row

from services.detection.domain.model import Asset, AssetDetection, Captured, NewAsset, TimeSpan
from services.detection.repository.conditions import within
from services.detection.repository.rows import Types, table_of
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.metadata import TIMESTAMP
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_detection import assets, faces
from shared.errors import NotFound
from shared.imaging.capture import TimePrecision
from shared.jobs.model import ItemFailure

# The hash is unsigned, PostgreSQL's bigint is not: both hold the same 64 bits.
_UNSIGNED = (1 << 64) - 1


async def lock_captured_times(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> dict[str, datetime | None]:
    """Lock those photos that are there, in order of id, and read when they were taken."""
    rows = await tx.rows(
        select(assets.c.asset_id, assets.c.captured_at)
        .where(assets.c.library_id == library_id, assets.c.asset_id == func.any(list(asset_ids)))
        .order_by(assets.c.asset_id)
        .with_for_update(key_share=True)
    )
    return {row.asset_id: row.captured_at for row in rows}


async def upsert_assets(
    tx: Transaction, clock: Clock, library_id: str, new: Sequence[NewAsset]
) -> dict[str, tuple[Asset, bool]]:
    """Add or replace photos in one statement; answers each with whether it was new, by id."""
    types: Types = {
        "asset_id": Text(),
        "uri": Text(),
        "captured_at": TIMESTAMP,
        "captured_precision": Text(),
        "captured_offset": SmallInteger(),
    }
    given = table_of(
        "given",
        types,
        [
            (
                asset.asset_id,
                asset.uri,
                asset.captured.at if asset.captured else None,
                asset.captured.precision.value if asset.captured else None,
                asset.captured.utc_offset_minutes if asset.captured else None,
            )
            # Everybody locks photos in order of id.
            for asset in sorted(new, key=lambda asset: asset.asset_id)
        ],
    )
    now = literal(clock.now(), TIMESTAMP)
    source = case((given.c.captured_at.is_not(None), "CALLER"))
    times = ("captured_at", "captured_precision", "captured_offset")
    columns = ["library_id", "asset_id", "uri", *times, "captured_source"]
    statement = insert(assets).from_select(
        [*columns, "created_at", "updated_at"],
        select(
            literal(library_id, Text()),
            given.c.asset_id,
            given.c.uri,
            *(given.c[name] for name in times),
            source,
            now,
            now,
        ),
    )
    replacing = statement.excluded
    # All or none of it: an offset that EXIF told is not that of a time the caller gives now.
    no_time = replacing.captured_at.is_(None)
    kept = {name: case((no_time, assets.c[name]), else_=replacing[name]) for name in (*times, "captured_source")}
    rows = await tx.rows(
        statement.on_conflict_do_update(
            index_elements=["library_id", "asset_id"],
            set_={"uri": replacing.uri, "updated_at": replacing.updated_at, **kept},
        ).returning(*assets.c, literal_column("(xmax = 0)").label("created"))
    )
    return {row.asset_id: (to_asset(row), row.created) for row in rows}


async def get_asset(tx: Transaction, library_id: str, asset_id: str) -> Asset:
    """One photo; raises :class:`NotFound`."""
    row = await tx.one_or_none(select(assets).where(assets.c.library_id == library_id, assets.c.asset_id == asset_id))
    if row is None:
        raise NotFound("asset", asset_id)
    return to_asset(row)


async def list_assets(
    tx: Transaction,
    library_id: str,
    request: PageRequest,
    detections: Sequence[AssetDetection],
    captured: TimeSpan,
) -> Page[Asset]:
    """Photos of a library by id; ``detections`` empty = all."""
    statement = select(assets).where(assets.c.library_id == library_id, *within(assets.c.captured_at, captured))
    if detections:
        statement = statement.where(assets.c.detection.in_([state.value for state in detections]))
    rows = await tx.rows(keyset(statement, request, [SortKey(assets.c.asset_id)]))
    return make_page(rows, request, to_asset, lambda row: [row.asset_id])


async def find_missing_asset(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> str | None:
    """The first of these ids that is not registered, or None; one statement."""
    rows = await tx.rows(
        select(assets.c.asset_id).where(
            assets.c.library_id == library_id, assets.c.asset_id == func.any(list(asset_ids))
        )
    )
    present = {row.asset_id for row in rows}
    return next((asset_id for asset_id in asset_ids if asset_id not in present), None)


async def list_face_ids(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> list[UUID]:
    """All faces of these photos."""
    rows = await tx.rows(
        select(faces.c.face_id).where(faces.c.library_id == library_id, faces.c.asset_id == func.any(list(asset_ids)))
    )
    return [row.face_id for row in rows]


def to_captured(row: Row[Any]) -> Captured | None:
    """When the photo of a row was taken."""
    if row.captured_at is None:
        return None
    precision = TimePrecision(row.captured_precision or TimePrecision.SECOND)
    return Captured(row.captured_at, precision, row.captured_offset)


def to_asset(row: Row[Any]) -> Asset:
    """A row of ``assets``."""
    failed = row.detection == AssetDetection.FAILED
    return Asset(
        asset_id=row.asset_id,
        library_id=row.library_id,
        uri=row.uri,
        captured=to_captured(row),
        width=row.width,
        height=row.height,
        orientation=row.orientation,
        difference_hash=(row.difference_hash or 0) & _UNSIGNED,
        detection=AssetDetection(row.detection),
        failure=ItemFailure(row.asset_id, row.failure_reason, row.failure_message or "") if failed else None,
        face_count=row.face_count,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
