"""SQL of ``calibrations``, and of the answers they are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlalchemy import Text, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import insert

from shared.db.calibrations import CALIBRATED_MODELS
from shared.db.engine import Transaction
from shared.db.tables_detection import models
from shared.db.tables_persons import changes
from shared.db.tables_suggestions import calibrations, reviews
from shared.faces.calibration import Calibration, Floats, read_calibration
from shared.faces.calibration_fit import Answers

MAX_ANSWERS: Final = 20_000

# As the index has it: a parameter in the place of the name would hide that from PostgreSQL.
_model_version: Final = literal_column("(reviews.evidence ->> 'model_version')", Text)


@dataclass(frozen=True, slots=True)
class CalibratedModel:
    """The active model of a library: its pack's curve, and the fit that took its place.

    ``answers``: what the fit learnt from, 0 and ``fitted_at`` None if there was none yet. ``fresh``: answers since then.
    """

    library_id: str
    model_version: str
    pack: dict[str, Any]
    answers: int
    fitted_at: datetime | None
    fresh: int

    @property
    def prior(self) -> Calibration:
        """The pack's curve, else ArcFace's. Raises ``ValueError`` for one that is none."""
        return read_calibration(self.pack)


@dataclass(frozen=True, slots=True, eq=False)
class GivenAnswers:
    """The last answers given in an embedding space, by time.

    ``asked_with`` (N,): how sure the question was. ``comparable`` (N,): asked for the likeness of the face; a second face
    of a person in one photo is asked about for another reason, and no curve of likeness can foretell the answer.
    ``until``: when the last was given, None if there is none.
    """

    answers: Answers
    asked_with: Floats
    comparable: npt.NDArray[np.bool_]
    until: datetime | None


async def list_calibrated_models(tx: Transaction, library_id: str | None = None) -> list[CalibratedModel]:
    """The active models of all libraries or of one, in one statement."""
    fresh = (
        select(func.count())
        .select_from(reviews)
        .where(
            reviews.c.library_id == models.c.library_id,
            models.c.model_version == _model_version,
            or_(calibrations.c.answered_until.is_(None), reviews.c.created_at > calibrations.c.answered_until),
        )
        .correlate(models, calibrations)
        .scalar_subquery()
    )
    statement = (
        select(
            models.c.library_id,
            models.c.model_version,
            models.c.calibration,
            func.coalesce(calibrations.c.answers, 0).label("answers"),
            calibrations.c.fitted_at,
            fresh.label("fresh"),
        )
        .select_from(CALIBRATED_MODELS)
        .where(models.c.state == "ACTIVE")
        .order_by(models.c.library_id)
    )
    if library_id is not None:
        statement = statement.where(models.c.library_id == library_id)
    return [
        CalibratedModel(row.library_id, row.model_version, row.calibration, row.answers, row.fitted_at, row.fresh)
        for row in await tx.rows(statement)
    ]


async def list_answers(tx: Transaction, library_id: str, model_version: str) -> GivenAnswers:
    """The last 20,000 answers of an embedding space, in one statement.

    Of several answers to one question the last counts, and none whose change was undone.
    """
    evidence = reviews.c.evidence
    rows = await tx.rows(
        select(
            reviews.c.suggestion_id,
            (reviews.c.answer == "ACCEPT").label("accepted"),
            reviews.c.confidence,
            reviews.c.created_at,
            evidence["score"].as_float().label("score"),
            evidence["margin"].as_float().label("margin"),
            evidence["support"].as_integer().label("support"),
            evidence["same_photo"].as_boolean().label("same_photo"),
            changes.c.undone_by,
        )
        .select_from(reviews)
        .outerjoin(changes, changes.c.change_id == func.coalesce(reviews.c.change_id, reviews.c.review_id))
        .where(reviews.c.library_id == library_id, _model_version == model_version)
        .order_by(reviews.c.created_at.desc(), reviews.c.review_id.desc())
        .limit(MAX_ANSWERS)
    )
    return _gather(rows)


async def store_calibration(
    tx: Transaction, model: CalibratedModel, curve: Calibration, given: GivenAnswers, fitted_at: datetime
) -> None:
    """Put a fit in force, unless one that knew later answers was stored meanwhile."""
    insertion = insert(calibrations).values(
        library_id=model.library_id,
        model_version=model.model_version,
        parameters=curve.to_json(),
        answers=int(given.comparable.sum()),
        answered_until=given.until,
        fitted_at=fitted_at,
    )
    await tx.execute(
        insertion.on_conflict_do_update(
            index_elements=["library_id", "model_version"],
            set_={name: insertion.excluded[name] for name in ("parameters", "answers", "answered_until", "fitted_at")},
            where=calibrations.c.answered_until <= insertion.excluded.answered_until,
        )
    )


def _gather(rows: Sequence[Any]) -> GivenAnswers:
    last: dict[UUID, Any] = {}
    for row in rows:
        last.setdefault(row.suggestion_id, row)
    kept = [row for row in reversed(last.values()) if row.undone_by is None]
    return GivenAnswers(
        answers=Answers(
            scores=np.array([row.score for row in kept], dtype=np.float64),
            margins=np.array([np.nan if row.margin is None else row.margin for row in kept], dtype=np.float64),
            supports=np.array([row.support for row in kept], dtype=np.int64),
            accepted=np.array([row.accepted for row in kept], dtype=np.bool_),
        ),
        asked_with=np.array([row.confidence for row in kept], dtype=np.float64),
        comparable=np.array([not row.same_photo for row in kept], dtype=np.bool_),
        until=rows[0].created_at if rows else None,
    )
