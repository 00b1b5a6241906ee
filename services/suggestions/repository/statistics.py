"""SQL that counts questions and their answers, by person, by method and by day.

Counted on ``suggestions`` alone: a pair has one row for ever, which knows when it was asked and how it was answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Date, DateTime, and_, case, cast, func, literal, select, union_all
from sqlalchemy.engine import Row

from services.suggestions.domain.model import SuggestionMethod, SuggestionState
from services.suggestions.repository.suggestions import still_stands
from shared.db.engine import Transaction
from shared.db.tables_suggestions import suggestions

SHOWN_PERSONS = 500


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """Questions and answers. ``median_wait``: from a question to its answer, half of them were faster; None without answers."""

    asked: int
    accepted: int
    rejected: int
    median_wait: timedelta | None

    @property
    def precision(self) -> float | None:
        """Share of the answers that were yes; None without answers."""
        answered = self.accepted + self.rejected
        return self.accepted / answered if answered else None


@dataclass(frozen=True, slots=True)
class PersonCounts:
    """Suggestions of one person; ``pending`` are those that still stand."""

    person_id: UUID
    pending: int
    answers: AnswerCounts


@dataclass(frozen=True, slots=True)
class MethodCounts:
    """By method, those that found anything, and of all together."""

    total: AnswerCounts
    methods: dict[SuggestionMethod, AnswerCounts]


async def count_by_person(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> list[PersonCounts]:
    """Persons by pending suggestions that still stand, most first: those named, or all that have any."""
    pending = _count(suggestions.c.state == SuggestionState.PENDING.value, still_stands()).label("pending")
    statement = (
        select(suggestions.c.person_id, pending, *_ANSWERS)
        .where(suggestions.c.library_id == library_id)
        .group_by(suggestions.c.person_id)
        .order_by(pending.desc(), suggestions.c.person_id)
        .limit(SHOWN_PERSONS)
    )
    if person_ids:
        statement = statement.where(suggestions.c.person_id == func.any(list(person_ids)))
    else:
        statement = statement.having(pending > 0)
    return [PersonCounts(row.person_id, row.pending, _answers(row)) for row in await tx.rows(statement)]


async def count_by_method(tx: Transaction, library_id: str) -> MethodCounts:
    """Questions and answers of a library, by method and all together."""
    rows = await tx.rows(
        select(suggestions.c.method, *_ANSWERS)
        .where(suggestions.c.library_id == library_id)
        .group_by(func.rollup(suggestions.c.method))
        .order_by(suggestions.c.method)
    )
    return MethodCounts(
        next(_answers(row) for row in rows if row.method is None),
        {SuggestionMethod(row.method): _answers(row) for row in rows if row.method is not None},
    )


async def count_by_day(tx: Transaction, library_id: str, since: date) -> list[tuple[date, AnswerCounts]]:
    """What was asked each day (UTC), and the answers given that day, the last day first; days without either are left out."""
    start = datetime.combine(since, time(), UTC)
    here = suggestions.c.library_id == library_id
    asked = select(_day_of(_asked_at).label("day"), *_tell(asked=1)).where(here, _asked_at >= start)
    answered = select(_day_of(suggestions.c.closed_at).label("day"), *_tell(asked=0)).where(
        here, _ANSWERED, suggestions.c.closed_at >= start
    )
    told = union_all(asked, answered).subquery("told")
    accepted = and_(told.c.asked == 0, told.c.state == SuggestionState.ACCEPTED.value)
    rejected = and_(told.c.asked == 0, told.c.state == SuggestionState.REJECTED.value)
    rows = await tx.rows(
        select(
            told.c.day,
            func.sum(told.c.asked).label("asked"),
            _count(accepted).label("accepted"),
            _count(rejected).label("rejected"),
            func.percentile_cont(0.5).within_group(case((told.c.asked == 0, told.c.wait))).label("median_wait"),
        )
        .group_by(told.c.day)
        .order_by(told.c.day.desc())
    )
    return [(row.day, _answers(row)) for row in rows]


def _count(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(*conditions)


def _day_of(moment: ColumnElement[Any]) -> ColumnElement[date]:
    return cast(func.timezone("UTC", moment, type_=DateTime()), Date)


def _tell(asked: int) -> tuple[ColumnElement[Any], ...]:
    return literal(asked).label("asked"), suggestions.c.state, _WAIT.label("wait")


def _answers(row: Row[Any]) -> AnswerCounts:
    return AnswerCounts(int(row.asked), row.accepted, row.rejected, row.median_wait)


# One that had expired was asked again, and waited for its answer from then.
_asked_at: ColumnElement[datetime] = func.coalesce(suggestions.c.asked_at, suggestions.c.created_at)
_ANSWERED = suggestions.c.state.in_([SuggestionState.ACCEPTED.value, SuggestionState.REJECTED.value])
_WAIT: ColumnElement[timedelta] = suggestions.c.closed_at - _asked_at
_ANSWERS = (
    func.count().label("asked"),
    _count(suggestions.c.state == SuggestionState.ACCEPTED.value).label("accepted"),
    _count(suggestions.c.state == SuggestionState.REJECTED.value).label("rejected"),
    func.percentile_cont(0.5).within_group(case((_ANSWERED, _WAIT))).label("median_wait"),
)
