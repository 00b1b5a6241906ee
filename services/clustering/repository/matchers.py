"""Reads the matcher that is active in a library: the persons service learns and chooses it."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select

from services.clustering.domain.model import ActiveModel
from shared.db.engine import Transaction
from shared.db.tables_persons import matchers
from shared.faces.projection import LearntSpace, Projection, Strangers


async def with_learnt_space(tx: Transaction, library_id: str, model: ActiveModel) -> ActiveModel:
    """The model with the space of the library's active matcher; as it is without one that was learnt in the model's space."""
    row = await tx.one_or_none(
        select(
            matchers.c.matcher_id,
            matchers.c.projection,
            matchers.c.input_dimension,
            matchers.c.dimension,
            matchers.c.report,
        ).where(matchers.c.library_id == library_id, matchers.c.model_version == model.model_version, matchers.c.active)
    )
    if row is None:
        return model
    learnt = LearntSpace(
        Projection.from_bytes(row.projection, row.input_dimension, row.dimension),
        before=Strangers(**row.report["strangers_before"]),
        after=Strangers(**row.report["strangers_after"]),
    )
    return replace(model, learnt=learnt, matcher_id=row.matcher_id)
