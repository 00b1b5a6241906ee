"""What the persons service derives from photos (when somebody was first and last seen, eras) has to follow them."""

from __future__ import annotations

from collections.abc import Sequence

from services.detection.domain.model import DetectionDeps
from services.detection.repository.removing import list_holders
from shared.db.engine import Transaction
from shared.db.people_queue import queue_people


async def queue_people_on(tx: Transaction, deps: DetectionDeps, library_id: str, asset_ids: Sequence[str]) -> None:
    """Have everybody on these photos brought up to date, soon after this transaction, by the persons service."""
    if asset_ids:
        await queue_people(tx, deps.clock, library_id, await list_holders(tx, library_id, asset_ids))
