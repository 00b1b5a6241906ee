"""Learning from answers how sure a match is, and telling how sure the confidences have been.

A library's curve is fitted anew once there are ten answers more than at the last fit, and 5 % more: often at first, when
each answer tells much, and seldom later. That is a chore of the worker, so that no answer waits for it. The questions that
are open keep the confidence they were asked with until they are found again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from services.suggestions.repository.calibrations import (
    CalibratedModel,
    list_answers,
    list_calibrated_models,
    store_calibration,
)
from shared.clock import Clock
from shared.db.engine import DATABASE_FAILURES, Database
from shared.faces.calibration_fit import (
    PrecisionCost,
    Reliability,
    cross_validate,
    fit_calibration,
    measure_reliability,
    price_precisions,
)

log = structlog.get_logger(__name__)

EVERY_S: Final = 10.0
FRESH_ANSWERS: Final = 10
FRESH_SHARE: Final = 0.05
TARGETS: Final = (0.5, 0.8, 0.9, 0.95, 0.99, 0.995)


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """How reliable the confidences of a library's active model are.

    ``answers``: those the curve in force was fitted on at ``fitted_at``; 0 and None: it is the pack's. ``as_asked``: all
    answers against the confidences the questions were asked with, by whatever curve was in force then. ``held_out``:
    those about likeness against what curves fitted without them say of them, which is what to expect of the curve today.
    ``costs``: what each target precision costs, by those.

    All of it is about questions that were asked and answered. What no curve thought likely enough to ask is not in it, so a
    recall here is of the yes answers, not of a person's faces.
    """

    model_version: str
    answers: int
    fitted_at: datetime | None
    as_asked: Reliability
    held_out: Reliability
    costs: tuple[PrecisionCost, ...]


async def refit_forever(database: Database, clock: Clock) -> None:
    """Look every ten seconds; any number of workers may."""
    while True:
        try:
            await refit_due(database, clock)
        except DATABASE_FAILURES as error:
            log.warning("calibrations_not_read", error=type(error).__name__)
        await asyncio.sleep(EVERY_S)


async def refit_due(database: Database, clock: Clock) -> int:
    """Fit the calibrations that are due, and answer how many; no transaction is open while it computes."""
    async with database.snapshot() as tx:
        due = [model for model in await list_calibrated_models(tx) if is_due(model)]
    fitted = 0
    for model in due:
        try:
            prior = model.prior
        except ValueError as error:
            # One library's pack is no reason to leave the others without.
            log.warning("calibration_not_fitted", library_id=model.library_id, error=str(error))
            continue
        async with database.snapshot() as tx:
            given = await list_answers(tx, model.library_id, model.model_version)
        if given.until is None:
            # Forgotten with those they were about, since they were counted.
            continue
        learnt = given.answers.take(given.comparable)
        curve = await asyncio.to_thread(fit_calibration, prior, learnt)
        async with database.transaction() as tx:
            await store_calibration(tx, model, curve, given, clock.now())
        log.info("calibration_fitted", library_id=model.library_id, answers=len(learnt))
        fitted += 1
    return fitted


def is_due(model: CalibratedModel) -> bool:
    """Whether there are enough answers that its curve does not know."""
    return model.fresh >= max(FRESH_ANSWERS, FRESH_SHARE * model.answers)


async def report_calibration(database: Database, library_id: str) -> CalibrationReport | None:
    """Hold the last 20,000 answers against the confidences; None where nothing has been detected yet.

    Raises ``ValueError`` for a stored calibration that is none.
    """
    async with database.snapshot() as tx:
        models = await list_calibrated_models(tx, library_id)
        if not models:
            return None
        (model,) = models
        given = await list_answers(tx, library_id, model.model_version)
    likeness = given.answers.take(given.comparable)
    held_out = await asyncio.to_thread(cross_validate, model.prior, likeness)
    return CalibrationReport(
        model_version=model.model_version,
        answers=model.answers,
        fitted_at=model.fitted_at,
        as_asked=measure_reliability(given.asked_with, given.answers.accepted),
        held_out=measure_reliability(held_out, likeness.accepted),
        costs=price_precisions(held_out, likeness.accepted, TARGETS),
    )
