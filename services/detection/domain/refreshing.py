"""What the persons service derives from photos (when somebody was first and last seen) has to follow them."""

from __future__ import annotations

from collections.abc import Sequence

from services.detection.domain.model import DetectionDeps
from services.detection.repository.removing import list_holders
from shared.db.engine import Transaction
from shared.jobs.refreshing import refresh_people_later


async def refresh_people_on(
    tx: Transaction, deps: DetectionDeps, library_id: str, asset_ids: Sequence[str], started_by: str
) -> None:
    """Have everybody on these photos brought up to date, after this transaction, by a job of the persons service."""
    if asset_ids:
        person_ids = await list_holders(tx, library_id, asset_ids)
        await refresh_people_later(tx, deps.ids, deps.clock, library_id, person_ids, started_by)
