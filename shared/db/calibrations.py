"""The calibration in force in an embedding space of a library: fitted on its answers, else its model pack's.

Here, as whoever holds faces against people needs it: finding questions, and grouping what is left.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import and_, func, select

from shared.db.engine import Transaction
from shared.db.tables_detection import models
from shared.db.tables_suggestions import calibrations
from shared.faces.calibration import Calibration, read_calibration

CALIBRATED_MODELS: Final = models.outerjoin(
    calibrations,
    and_(calibrations.c.library_id == models.c.library_id, calibrations.c.model_version == models.c.model_version),
)
"""Models, each with its calibration fitted on answers if there is one."""

IN_FORCE: Final = func.coalesce(calibrations.c.parameters, models.c.calibration)
"""Of a row of :data:`CALIBRATED_MODELS`, what :func:`shared.faces.calibration.read_calibration` reads."""


async def read_library_calibration(tx: Transaction, library_id: str, model_version: str) -> Calibration:
    """The curve in force, in one statement; ArcFace's for a model that is unknown or whose pack has none.

    Raises ``ValueError`` for a stored calibration that is none.
    """
    row = await tx.one_or_none(
        select(IN_FORCE.label("calibration"))
        .select_from(CALIBRATED_MODELS)
        .where(models.c.library_id == library_id, models.c.model_version == model_version)
    )
    return read_calibration(row.calibration if row is not None else {})
