"""Eras of a life: the age band of a face, from birth date and capture date, each with its own precision.

A date known only to the year is an interval. An era is told only where the whole interval of possible ages
lies in one band; otherwise it is unknown (``None``) and changes no score. The same holds for "before birth":
only a certain contradiction vetoes.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import MAXYEAR, date, datetime, timedelta
from enum import StrEnum
from typing import Final


class Era(StrEnum):
    """Age bands in full years, both ends included."""

    INFANT = "INFANT"
    CHILD = "CHILD"
    TEEN = "TEEN"
    YOUNG_ADULT = "YOUNG_ADULT"
    ADULT = "ADULT"
    SENIOR = "SENIOR"


class DatePrecision(StrEnum):
    """How much of a date is known."""

    DAY = "DAY"
    MONTH = "MONTH"
    YEAR = "YEAR"


ERA_ORDER: Final = tuple(Era)
LAST_AGE: Final = (3, 12, 19, 35, 55)
"""The last full year of each era but the last: infant 0-3, child 4-12, teen 13-19, young adult 20-35, adult 36-55."""

SAME_ERA: Final = 1.0
ADJACENT_ERA: Final = 0.9
FURTHER_ERA: Final = 0.15


@dataclass(frozen=True, slots=True)
class PartialDate:
    """A calendar date known to some precision; the parts below it are ignored."""

    value: date
    precision: DatePrecision = DatePrecision.DAY

    @property
    def earliest(self) -> date:
        """The first day it may be."""
        if self.precision is DatePrecision.YEAR:
            return self.value.replace(month=1, day=1)
        return self.value.replace(day=1) if self.precision is DatePrecision.MONTH else self.value

    @property
    def latest(self) -> date:
        """The last day it may be."""
        if self.precision is DatePrecision.YEAR:
            return self.value.replace(month=12, day=31)
        if self.precision is DatePrecision.MONTH:
            return self.value.replace(day=calendar.monthrange(self.value.year, self.value.month)[1])
        return self.value


@dataclass(frozen=True, slots=True)
class EraSpan:
    """The photos of one era of a person: taken on ``first`` at the earliest and on ``last`` at the latest, and not before the
    person may have been born. :func:`find_era` by comparing days, so that a database can do it.
    """

    era: Era
    first: date
    last: date
    born: date


def make_partial_date(year: int | None, month: int | None, day: int | None) -> PartialDate | None:
    """A date of as many parts as are known; ``None`` without a year. Raises ``ValueError`` if there is no such day."""
    if year is None:
        return None
    precision = DatePrecision.DAY if day else DatePrecision.MONTH if month else DatePrecision.YEAR
    return PartialDate(date(year, month or 1, day or 1), precision)


def make_capture_date(moment: datetime | None, precision: str | None) -> PartialDate | None:
    """The day of a photo as far as it is known; ``precision`` is SECOND, DAY, MONTH or YEAR."""
    if moment is None:
        return None
    known = {"MONTH": DatePrecision.MONTH, "YEAR": DatePrecision.YEAR}.get(precision or "", DatePrecision.DAY)
    return PartialDate(moment.date(), known)


def count_years(born: date, on: date) -> int:
    """Full years of age on a day; negative before birth. Somebody born on 29 February turns older on 1 March."""
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def era_of_age(years: int) -> Era:
    """The era of an age in full years. Raises ``ValueError`` for a negative age."""
    if years < 0:
        raise ValueError("there is no era before birth")
    return ERA_ORDER[sum(years > last for last in LAST_AGE)]


def is_before_birth(born: PartialDate | None, captured: PartialDate | None) -> bool:
    """Whether the photo was certainly taken before the person was born; unknown dates are never certain."""
    return born is not None and captured is not None and captured.latest < born.earliest


def find_era(born: PartialDate | None, captured: PartialDate | None) -> Era | None:
    """The era of a person in a photo, or ``None`` where a date is missing, too imprecise to tell, or before birth."""
    if born is None or captured is None or captured.latest < born.earliest:
        return None
    youngest = max(0, count_years(born.latest, captured.earliest))
    oldest = count_years(born.earliest, captured.latest)
    era = era_of_age(oldest)
    return era if era_of_age(youngest) is era else None


def list_era_spans(born: PartialDate) -> list[EraSpan]:
    """The eras of somebody's life as days: a photo whose ``earliest`` is not before ``first`` and whose ``latest`` is from
    ``born`` to ``last`` is of that era; one that fits none is of unknown era.
    """
    spans = []
    for era, youngest, oldest in zip(ERA_ORDER, (0, *(age + 1 for age in LAST_AGE)), (*LAST_AGE, None), strict=True):
        # Age is counted from birth: the first era has no day before which a photo known to its year cannot reach back.
        first = find_birthday(born.latest, youngest) if youngest else date.min
        last = date.max if oldest is None else find_birthday(born.earliest, oldest + 1) - timedelta(days=1)
        spans.append(EraSpan(era, first, last, born.earliest))
    return spans


def find_birthday(born: date, years: int) -> date:
    """The first day of so many full years of age, as :func:`count_years` counts; the last of all days if it comes too late."""
    if born.year + years > MAXYEAR:
        return date.max
    if (born.month, born.day) == (2, 29) and not calendar.isleap(born.year + years):
        return date(born.year + years, 3, 1)
    return born.replace(year=born.year + years)


def score_eras(left: Era | None, right: Era | None) -> float:
    """Factor 0..1 for comparing faces of two eras: same 1.0, adjacent 0.9, then 0.15 less for each era between.

    An unknown era is neutral: 1.0.
    """
    if left is None or right is None:
        return SAME_ERA
    gap = abs(ERA_ORDER.index(left) - ERA_ORDER.index(right))
    return SAME_ERA if gap == 0 else ADJACENT_ERA - FURTHER_ERA * (gap - 1)
