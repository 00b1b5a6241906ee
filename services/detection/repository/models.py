"""SQL of ``models``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.detection.domain.migration import ModelState, StoredModel
from services.detection.domain.model import PackDescription
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_detection import face_embeddings, models


async def activate_first_model(tx: Transaction, clock: Clock, library_id: str, pack: PackDescription) -> None:
    """Store ``pack`` as the library's active model, unless the library has one or knows this one."""
    await _add_model(tx, clock, library_id, pack, ModelState.ACTIVE)


async def add_shadow_model(tx: Transaction, clock: Clock, library_id: str, pack: PackDescription) -> None:
    """Store ``pack`` as a model beside the active one, unless the library knows it."""
    await _add_model(tx, clock, library_id, pack, ModelState.SHADOW)


async def find_active_version(tx: Transaction, library_id: str) -> str | None:
    """The version of the library's active model, or None before its first detection."""
    found: str | None = await tx.scalar(_active(library_id))
    return found


async def find_active_model(tx: Transaction, library_id: str) -> PackDescription | None:
    """The library's active model as its pack describes it, or None before its first detection."""
    row = await tx.one_or_none(
        select(models).where(models.c.library_id == library_id, models.c.state == ModelState.ACTIVE.value)
    )
    if row is None:
        return None
    return PackDescription(row.model_version, row.pack, row.dimension, row.thresholds, row.calibration)


async def hold_active_version(tx: Transaction, library_id: str) -> str | None:
    """As :func:`find_active_version`, and nobody changes it before the transaction ends.

    None also if it was changed while this waited for who changed it.
    """
    found: str | None = await tx.scalar(_active(library_id).with_for_update(read=True))
    return found


async def hold_versions(tx: Transaction, library_id: str) -> tuple[str | None, set[str]]:
    """The active version and every version the library has vectors of, which nobody changes before the transaction ends."""
    rows = await tx.rows(
        select(models.c.model_version, models.c.state)
        .where(models.c.library_id == library_id)
        .order_by(models.c.model_version)
        .with_for_update(read=True)
    )
    active = next((row.model_version for row in rows if row.state == ModelState.ACTIVE.value), None)
    return active, {row.model_version for row in rows}


async def change_active_version(tx: Transaction, library_id: str, leaving: str, left_as: ModelState, to: str) -> None:
    """Make another model of the library its active one. Both rows are locked by then."""
    # One after the other: a library has one active model at any moment.
    for version, state in ((leaving, left_as), (to, ModelState.ACTIVE)):
        await tx.execute(
            update(models)
            .where(models.c.library_id == library_id, models.c.model_version == version)
            .values(state=state.value)
        )


async def lock_active_version(tx: Transaction, library_id: str) -> str | None:
    """Lock every model of a library, so that what is stored under the active one is complete; answers which that is."""
    rows = await tx.rows(
        select(models.c.model_version, models.c.state)
        .where(models.c.library_id == library_id)
        .order_by(models.c.model_version)
        .with_for_update()
    )
    return next((row.model_version for row in rows if row.state == ModelState.ACTIVE.value), None)


async def list_versions(tx: Transaction, library_id: str) -> Sequence[str]:
    """Every model version the library has vectors of."""
    rows = await tx.rows(
        select(models.c.model_version).where(models.c.library_id == library_id).order_by(models.c.model_version)
    )
    return [row.model_version for row in rows]


async def read_dimensions(tx: Transaction, library_id: str) -> dict[str, int]:
    """The length of vectors of every model the library has vectors of, by version."""
    rows = await tx.rows(
        select(models.c.model_version, models.c.dimension)
        .where(models.c.library_id == library_id)
        .order_by(models.c.model_version)
    )
    return {row.model_version: row.dimension for row in rows}


async def read_known_dimensions(tx: Transaction) -> dict[str, int]:
    """The length of vectors of every model any library has vectors of, by version."""
    rows = await tx.rows(select(models.c.model_version, models.c.dimension).distinct())
    return {row.model_version: row.dimension for row in rows}


async def list_models(tx: Transaction, library_id: str) -> list[StoredModel]:
    """The library's models with their face counts, the active one first, then the newest; one statement."""
    counted = (
        select(func.count())
        .select_from(face_embeddings)
        .where(
            face_embeddings.c.library_id == models.c.library_id,
            face_embeddings.c.model_version == models.c.model_version,
        )
        .scalar_subquery()
    )
    rows = await tx.rows(
        select(models, counted.label("face_count"))
        .where(models.c.library_id == library_id)
        .order_by(
            (models.c.state == ModelState.ACTIVE.value).desc(), models.c.created_at.desc(), models.c.model_version
        )
    )
    return [
        StoredModel(
            model_version=row.model_version,
            pack=row.pack,
            dimension=row.dimension,
            state=ModelState(row.state),
            face_count=row.face_count,
            created_at=row.created_at,
        )
        for row in rows
    ]


async def _add_model(tx: Transaction, clock: Clock, library_id: str, pack: PackDescription, state: ModelState) -> None:
    row = {
        "library_id": library_id,
        "model_version": pack.model_version,
        "pack": pack.pack,
        "dimension": pack.dimension,
        "state": state.value,
        "thresholds": dict(pack.thresholds),
        "calibration": dict(pack.calibration),
        "created_at": clock.now(),
    }
    await tx.execute(insert(models).values(row).on_conflict_do_nothing())


def _active(library_id: str) -> Select[Any]:
    return select(models.c.model_version).where(
        models.c.library_id == library_id, models.c.state == ModelState.ACTIVE.value
    )
