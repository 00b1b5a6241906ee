"""Registering photos: where they are, and when they were taken as far as the caller knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.detection.domain.model import Asset, DetectionDeps, NewAsset
from services.detection.domain.refreshing import queue_people_on
from services.detection.repository.assets import list_face_ids, lock_captured_times, upsert_assets
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.errors import FieldViolation, InvalidRequest

MAX_BATCH = 500


@dataclass(frozen=True, slots=True)
class AssetsRegistered:
    """The photos in the order given, and how many of them were new."""

    assets: list[Asset]
    created: int


def check_batch(assets: Sequence[NewAsset]) -> None:
    """Raise :class:`InvalidRequest` unless there are 1..500 photos with each id once."""
    if not 1 <= len(assets) <= MAX_BATCH:
        raise InvalidRequest(f"assets must hold 1..{MAX_BATCH} photos", field="assets")
    first: dict[str, int] = {}
    violations = []
    for index, asset in enumerate(assets):
        earlier = first.setdefault(asset.asset_id, index)
        if earlier != index:
            text = f"id '{asset.asset_id}' is that of assets[{earlier}] already"
            violations.append(FieldViolation(f"assets[{index}].id", text))
    if violations:
        raise InvalidRequest("assets must hold each id once", violations=violations)


async def register_assets(
    tx: Transaction, deps: DetectionDeps, library_id: str, assets: Sequence[NewAsset]
) -> AssetsRegistered:
    """Add photos, or replace uri and capture time of those that are there; a time that is not given stays.

    The caller checked them with :func:`check_batch`. A fixed number of statements, whatever the number of photos.
    """
    before = await lock_captured_times(tx, library_id, [asset.asset_id for asset in assets])
    written = await upsert_assets(tx, deps.clock, library_id, assets)
    # Qdrant's points carry the time of their photo.
    moved = [
        asset.asset_id
        for asset, _ in written.values()
        if asset.asset_id in before and before[asset.asset_id] != (asset.captured.at if asset.captured else None)
    ]
    if moved:
        await queue_people_on(tx, deps, library_id, moved)
        await queue_faces(tx, deps.clock, library_id, await list_face_ids(tx, library_id, moved))
    return AssetsRegistered(
        assets=[written[asset.asset_id][0] for asset in assets],
        created=sum(created for _, created in written.values()),
    )
