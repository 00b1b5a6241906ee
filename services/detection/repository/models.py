"""SQL of ``models``."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from services.detection.domain.model import PackDescription
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_detection import models


async def activate_first_model(tx: Transaction, clock: Clock, library_id: str, pack: PackDescription) -> None:
    """Store ``pack`` as the library's active model, unless the library has one or knows this one."""
    row = {
        "library_id": library_id,
        "model_version": pack.model_version,
        "pack": pack.pack,
        "dimension": pack.dimension,
        "state": "ACTIVE",
        "thresholds": dict(pack.thresholds),
        "calibration": dict(pack.calibration),
        "created_at": clock.now(),
    }
    await tx.execute(insert(models).values(row).on_conflict_do_nothing())


async def find_active_version(tx: Transaction, library_id: str) -> str | None:
    """The version of the library's active model, or None before its first detection."""
    found: str | None = await tx.scalar(
        select(models.c.model_version).where(models.c.library_id == library_id, models.c.state == "ACTIVE")
    )
    return found


async def list_versions(tx: Transaction, library_id: str) -> Sequence[str]:
    """Every model version the library has vectors of."""
    rows = await tx.rows(
        select(models.c.model_version).where(models.c.library_id == library_id).order_by(models.c.model_version)
    )
    return [row.model_version for row in rows]
