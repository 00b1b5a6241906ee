"""Which prototypes are searched with, and the rules of a model."""

from __future__ import annotations

import numpy as np
import pytest

from services.suggestions.domain.people import choose_query_prototypes, make_rules
from services.suggestions.repository.known import ActiveModel, KnownPerson
from shared.config import SuggestionSettings
from shared.faces.calibration import ARCFACE_CALIBRATION, Calibration
from shared.faces.matching import ARCFACE_FLOOR
from tests.unit.suggestions.people import ANNA, BERT, axis, know, photo_face, prototype


def test_the_best_comes_first_then_what_is_good_and_different() -> None:
    people = know(
        [KnownPerson(ANNA, None)],
        [
            prototype(ANNA, photo_face(1, quality=0.9), axis(0)),
            prototype(ANNA, photo_face(2, quality=0.8), axis(0, 1, 0.01)),
            prototype(ANNA, photo_face(3, quality=0.5), axis(2)),
        ],
    )
    chosen = choose_query_prototypes(people, ANNA, SuggestionSettings(query_prototypes=2))
    np.testing.assert_allclose(chosen, [axis(0), axis(2)], atol=1e-3)


def test_of_near_duplicates_only_the_better_is_taken() -> None:
    people = know(
        [KnownPerson(ANNA, None)],
        [
            prototype(ANNA, photo_face(1, quality=0.9, second=1, difference_hash=0), axis(0)),
            prototype(ANNA, photo_face(2, quality=0.8, second=2, difference_hash=1), axis(1)),
            prototype(ANNA, photo_face(3, quality=0.7, second=40, difference_hash=1), axis(2)),
        ],
    )
    chosen = choose_query_prototypes(people, ANNA, SuggestionSettings())
    np.testing.assert_allclose(chosen, [axis(0), axis(2)], atol=1e-3)


def test_nobody_without_prototypes_is_searched_for() -> None:
    people = know([KnownPerson(ANNA, None)], [prototype(BERT, photo_face(1), axis(0))])
    assert people.prototype_rows(ANNA) == []
    assert people.prototype_rows(BERT) == []
    assert len(people.references.vectors) == 0
    assert choose_query_prototypes(people, ANNA, SuggestionSettings()).shape == (0, 8)


@pytest.mark.parametrize(
    ("thresholds", "calibration", "floor", "expected"),
    [
        ({"suggest_floor": 0.4}, {"slope": 10, "intercept": -4}, None, (0.4, Calibration(10.0, -4.0))),
        ({"suggest_floor": 0.4}, {}, 0.2, (0.2, ARCFACE_CALIBRATION)),
        ({}, {"slope": 10, "intercept": -4}, None, (ARCFACE_FLOOR, Calibration(10.0, -4.0))),
    ],
)
def test_the_settings_come_before_the_pack_and_the_pack_before_arcface(
    thresholds: dict[str, float],
    calibration: dict[str, float],
    floor: float | None,
    expected: tuple[float, Calibration],
) -> None:
    rules = make_rules(ActiveModel("m", 8, thresholds, calibration), SuggestionSettings(floor=floor))
    assert (rules.floor, rules.calibration) == expected
