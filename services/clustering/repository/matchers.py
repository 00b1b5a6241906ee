"""Reads the matcher that is active in a library: the persons service learns and chooses it."""

from __future__ import annotations

from sqlalchemy import select

from shared.db.engine import Transaction
from shared.db.tables_persons import matchers
from shared.faces.projection import LearntSpace, Projection, Strangers


async def find_learnt_space(tx: Transaction, library_id: str, model_version: str) -> LearntSpace | None:
    """The space of the active matcher; None without one, and for one that was learnt in another model's space."""
    row = await tx.one_or_none(
        select(matchers.c.projection, matchers.c.input_dimension, matchers.c.dimension, matchers.c.report).where(
            matchers.c.library_id == library_id, matchers.c.model_version == model_version, matchers.c.active
        )
    )
    if row is None:
        return None
    return LearntSpace(
        Projection.from_bytes(row.projection, row.input_dimension, row.dimension),
        before=Strangers(**row.report["strangers_before"]),
        after=Strangers(**row.report["strangers_after"]),
    )
