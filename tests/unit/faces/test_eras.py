"""Ages, eras and dates that are only partly known."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.faces.eras import (
    DatePrecision,
    Era,
    PartialDate,
    count_years,
    era_of_age,
    find_era,
    is_before_birth,
    list_era_spans,
    score_eras,
)

BORN = PartialDate(date(2000, 6, 15))


@pytest.mark.parametrize(
    ("age", "era"),
    [
        (0, Era.INFANT),
        (3, Era.INFANT),
        (4, Era.CHILD),
        (12, Era.CHILD),
        (13, Era.TEEN),
        (19, Era.TEEN),
        (20, Era.YOUNG_ADULT),
        (35, Era.YOUNG_ADULT),
        (36, Era.ADULT),
        (55, Era.ADULT),
        (56, Era.SENIOR),
        (110, Era.SENIOR),
    ],
)
def test_boundaries_in_years(age: int, era: Era) -> None:
    assert era_of_age(age) is era
    assert find_era(BORN, PartialDate(date(2000 + age, 6, 15))) is era


def test_the_birthday_itself_turns_the_era() -> None:
    assert find_era(BORN, PartialDate(date(2004, 6, 14))) is Era.INFANT
    assert find_era(BORN, PartialDate(date(2004, 6, 15))) is Era.CHILD


def test_an_imprecise_date_tells_only_what_is_certain() -> None:
    def year(number: int) -> PartialDate:
        return PartialDate(date(number, 2, 3), DatePrecision.YEAR)

    assert find_era(BORN, year(2003)) is Era.INFANT
    assert find_era(BORN, year(2004)) is None
    assert find_era(BORN, year(2005)) is Era.CHILD
    assert find_era(BORN, PartialDate(date(2004, 6, 1), DatePrecision.MONTH)) is None
    assert find_era(BORN, PartialDate(date(2004, 7, 1), DatePrecision.MONTH)) is Era.CHILD
    assert find_era(year(2000), PartialDate(date(2004, 7, 1))) is None
    assert find_era(year(2000), PartialDate(date(2006, 7, 1))) is Era.CHILD


def test_unknown_stays_unknown() -> None:
    assert find_era(None, BORN) is None
    assert find_era(BORN, None) is None
    assert not is_before_birth(None, BORN)
    assert not is_before_birth(BORN, None)


def test_before_birth_only_where_certain() -> None:
    assert is_before_birth(BORN, PartialDate(date(2000, 6, 14)))
    assert not is_before_birth(BORN, PartialDate(date(2000, 6, 15)))
    assert not is_before_birth(BORN, PartialDate(date(2000, 1, 1), DatePrecision.YEAR))
    assert is_before_birth(BORN, PartialDate(date(1999, 1, 1), DatePrecision.YEAR))
    assert find_era(BORN, PartialDate(date(1999, 1, 1))) is None
    assert find_era(BORN, PartialDate(date(2000, 1, 1), DatePrecision.YEAR)) is Era.INFANT


def test_leap_day_and_month_ends() -> None:
    assert count_years(date(2004, 2, 29), date(2008, 2, 28)) == 3
    assert count_years(date(2004, 2, 29), date(2005, 3, 1)) == 1
    assert PartialDate(date(2024, 2, 10), DatePrecision.MONTH).latest == date(2024, 2, 29)
    assert PartialDate(date(2024, 2, 29), DatePrecision.YEAR).earliest == date(2024, 1, 1)


def test_scores_by_distance_of_eras() -> None:
    assert score_eras(Era.TEEN, Era.TEEN) == 1.0
    assert score_eras(Era.TEEN, Era.CHILD) == score_eras(Era.CHILD, Era.TEEN) == 0.9
    falling = [score_eras(Era.INFANT, era) for era in Era]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(0.3)
    assert score_eras(None, Era.TEEN) == score_eras(Era.TEEN, None) == 1.0


@given(st.dates(date(1900, 1, 1), date(2030, 1, 1)), st.dates(date(1900, 1, 1), date(2030, 1, 1)))
def test_less_precision_never_tells_another_era(born: date, captured: date) -> None:
    exact = find_era(PartialDate(born), PartialDate(captured))
    for precision in (DatePrecision.MONTH, DatePrecision.YEAR):
        vague = find_era(PartialDate(born), PartialDate(captured, precision))
        assert vague is None or exact is None or vague is exact


def test_a_negative_age_is_refused() -> None:
    with pytest.raises(ValueError, match="before birth"):
        era_of_age(-1)


@given(
    born=st.builds(PartialDate, st.dates(date(1900, 1, 1), date(2030, 1, 1)), st.sampled_from(DatePrecision)),
    captured=st.builds(PartialDate, st.dates(date(1890, 1, 1), date(2040, 1, 1)), st.sampled_from(DatePrecision)),
)
def test_eras_told_by_days_are_those_told_by_age(born: PartialDate, captured: PartialDate) -> None:
    told = [
        span.era
        for span in list_era_spans(born)
        if span.first <= captured.earliest and span.born <= captured.latest <= span.last
    ]
    era = find_era(born, captured)
    assert told == ([] if era is None else [era])


def test_who_was_born_on_a_leap_day_or_at_the_end_of_time_has_eras() -> None:
    spans = {span.era: span for span in list_era_spans(PartialDate(date(2000, 2, 29)))}
    assert (spans[Era.INFANT].last, spans[Era.CHILD].first) == (date(2004, 2, 28), date(2004, 2, 29))
    assert (spans[Era.CHILD].last, spans[Era.TEEN].first) == (date(2013, 2, 28), date(2013, 3, 1))
    assert list_era_spans(PartialDate(date(9990, 1, 1)))[-1].first == date.max
