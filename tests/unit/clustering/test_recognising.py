"""Whose a face is, and what a machine may make of it."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from bench.embeddings import generate_faces
from services.clustering.domain.recognising import Recognised, RecognitionRules, Verdict, recognise_faces
from services.clustering.grouping.request import GroupingCancelled
from shared.faces.embeddings import Vectors, normalise
from shared.faces.eras import Era, PartialDate, find_era
from shared.faces.matching import explain_match, score_persons, stack_references
from tests.unit.clustering.recognition import RULES, make_bounds, make_known, make_person, make_table

LEAVE, ASK, ASSIGN = Verdict.LEAVE, Verdict.ASK, Verdict.ASSIGN
NOTHING = np.empty((0, 8), dtype=np.float32)
AXES = np.eye(8, dtype=np.float32)
ANNA, BEN = (AXES[:1], NOTHING), (AXES[1:2], NOTHING)


def face(anna: float, ben: float = 0.0) -> Vectors:
    """A face of these cosines to Anna's and Ben's only prototype; whatever is left, is like nobody."""
    return np.array([anna, ben, np.sqrt(1 - anna**2 - ben**2), 0, 0, 0, 0, 0], dtype=np.float32)


def verdicts(found: Recognised) -> list[Verdict]:
    return [Verdict(verdict) for verdict in found.verdicts.tolist()]


def test_the_answer_is_that_of_the_matching_everybody_shares() -> None:
    made = generate_faces(1500, seed=1)
    groups, rest = [], np.ones(len(made.truth), dtype=np.bool_)
    for person in range(40):
        rows = np.flatnonzero(made.truth == person)[:7]
        rest[rows] = False
        groups.append(
            (made.vectors[rows[:-1]], made.vectors[rows[-1:]] if len(rows) > 2 else NOTHING[:0].reshape(0, 512))
        )
    groups = sorted(filter(lambda group: len(group[0]), groups), key=lambda group: -sum(map(len, group)))
    candidates = made.vectors[rest]
    references = stack_references(groups, 512)
    table = score_persons(candidates, references, RULES.floor)
    known = make_known(groups)
    found = recognise_faces(known, make_table(candidates), make_bounds(len(candidates)), RULES)
    reached = table.scores.max(axis=1) >= RULES.floor
    assert (found.people >= 0).tolist() == reached.tolist()
    assert reached.sum() > 100
    for row, best in enumerate(table.scores.argmax(axis=1).tolist()):
        if not reached[row]:
            assert found.verdicts[row] == LEAVE
            continue
        match = explain_match(candidates, references, table, row, best, RULES.floor)
        assert (found.people[row], found.support[row]) == (match.person, match.support)
        assert found.scores[row] == pytest.approx(match.score, abs=1e-6)
        assert found.margins[row] == pytest.approx(match.margin, abs=1e-6)
        assert found.confidences[row] == pytest.approx(
            known.calibration.confidence(match.score, match.margin, match.support), abs=1e-5
        )


@pytest.mark.parametrize(("profile", "recall"), [("r100", 0.88), ("hard", 0.75)])
def test_what_is_assigned_is_right_and_most_is_found(profile: str, recall: float) -> None:
    made = generate_faces(12_000, seed=5, profile=profile)
    random = np.random.default_rng(0)
    sizes = np.bincount(made.truth[made.truth >= 0])
    named = random.permutation(np.flatnonzero(sizes >= 6))[: int((sizes >= 6).sum()) // 2]
    rest = np.ones(len(made.truth), dtype=np.bool_)
    people: list[tuple[int, Vectors]] = []
    for person in named.tolist():
        rows = random.permutation(np.flatnonzero(made.truth == person))
        rows = rows[: len(rows) // 2]
        rest[rows] = False
        people.append((person, made.vectors[rows[np.argsort(-made.quality[rows])][:8]]))
    people.sort(key=lambda each: -len(each[1]))
    none = np.empty((0, 512), dtype=np.float32)
    known = make_known([(shown, none) for _, shown in people])
    truth = made.truth[rest]
    found = recognise_faces(known, make_table(made.vectors[rest].astype(np.float16)), make_bounds(len(truth)), RULES)
    names = np.array([person for person, _ in people])
    assigned = found.rows_to(ASSIGN)
    right = names[found.people[assigned]] == truth[assigned]
    assert right.mean() >= 0.995
    assert right.sum() >= recall * np.isin(truth, names).sum()
    asked = found.rows_to(ASK)
    assert 0.4 <= (names[found.people[asked]] == truth[asked]).mean() < right.mean()


def test_sure_doubtful_and_unlike() -> None:
    known = make_known([ANNA, BEN])
    table = make_table(np.stack([face(0.9), face(0.4), face(0.32, 0.31), face(0.1), face(0.6, 0.6)]))
    found = recognise_faces(known, table, make_bounds(5), RULES)
    assert verdicts(found) == [ASSIGN, ASK, LEAVE, LEAVE, ASK]
    assert found.people.tolist()[:4] == [0, 0, 0, -1]
    assert found.margins[4] == pytest.approx(0.0, abs=1e-6)


def test_with_nobody_else_the_margin_says_nothing() -> None:
    known = make_known([ANNA])
    found = recognise_faces(known, make_table(face(0.55)[None]), make_bounds(1), RULES)
    assert np.isnan(found.margins[0])
    assert found.confidences[0] == pytest.approx(known.calibration.confidence(0.55), abs=1e-5)


@pytest.mark.parametrize("rule", ["assign_floor", "assign_precision"])
def test_either_floor_of_assigning_is_enough_to_ask(rule: str) -> None:
    values = {
        "floor": 0.3,
        "assign_floor": -1.0,
        "assign_precision": 0.995,
        "ask_confidence": 0.5,
        "asks_per_person": 9,
    }
    stricter = RecognitionRules(**{**values, rule: 0.95 if rule == "assign_floor" else 1 - 1e-9})  # type: ignore[arg-type]
    table = make_table(face(0.9)[None])
    known = make_known([ANNA])
    assert verdicts(recognise_faces(known, table, make_bounds(1), RULES)) == [ASSIGN]
    assert verdicts(recognise_faces(known, table, make_bounds(1), stricter)) == [ASK]


def test_who_was_refused_is_as_if_they_were_not_there() -> None:
    known = make_known([ANNA, BEN])
    table = make_table(np.stack([face(0.75, 0.6)] * 3))
    found = recognise_faces(known, table, make_bounds(3, refused=[(1, 0), (2, 0), (2, 1)]), RULES)
    assert found.people.tolist() == [0, 1, -1]
    assert verdicts(found) == [ASSIGN, ASK, LEAVE]
    assert np.isnan(found.margins[1])


def test_nobody_is_recognised_before_they_were_born() -> None:
    people = [make_person(0, born=date(2015, 6, 1)), make_person(1)]
    known = make_known([ANNA, BEN], people=people)
    days = [date(2015, 5, 31), date(2015, 6, 1), None]
    found = recognise_faces(known, make_table(np.stack([face(0.8, 0.55)] * 3)), make_bounds(3, taken=days), RULES)
    assert found.people.tolist() == [1, 0, 0]


def test_of_two_in_a_photo_the_better_is_assigned_and_the_other_asked() -> None:
    known = make_known([ANNA, BEN])
    table = make_table(np.stack([face(0.8), face(0.9), face(0.0, 0.9), face(0.85)]), photos=[7, 7, 7, 7])
    assert verdicts(recognise_faces(known, table, make_bounds(4), RULES)) == [ASK, ASSIGN, ASSIGN, ASK]
    collage = make_bounds(4, doubles=range(4))
    assert verdicts(recognise_faces(known, table, collage, RULES)) == [ASSIGN] * 4


def test_who_is_in_the_photo_already_is_asked_about() -> None:
    known = make_known([ANNA, BEN])
    table = make_table(np.stack([face(0.9)] * 3))
    bounds = make_bounds(3, shown=[(0, 0), (1, 1), (2, 0)], doubles=[2])
    assert verdicts(recognise_faces(known, table, bounds, RULES)) == [ASK, ASSIGN, ASSIGN]


def test_another_age_than_the_most_alike_prototype_is_asked_about() -> None:
    known = make_known(
        [(AXES[:2], NOTHING), (AXES[2:3], NOTHING)],
        people=[make_person(0, born=date(1980, 1, 1)), make_person(1)],
        eras=[Era.ADULT, None],
    )
    table = make_table(np.stack([face(0.9)] * 4))
    days = [date(2020, 1, 1), date(2005, 1, 1), date(1982, 1, 1), None]
    assert verdicts(recognise_faces(known, table, make_bounds(4, taken=days), RULES)) == [ASSIGN, ASSIGN, ASK, ASSIGN]


def test_what_humans_did_with_a_face_stands() -> None:
    known = make_known([ANNA])
    table = make_table(np.stack([face(0.9)] * 4), pinned=[1])
    table.dismissed[2] = True
    found = recognise_faces(known, table, make_bounds(4, gone=[3]), RULES)
    assert verdicts(found) == [ASSIGN, ASK, LEAVE, LEAVE]
    assert found.people.tolist() == [0, 0, -1, -1]


def test_hidden_people_get_their_faces_and_no_questions() -> None:
    known = make_known([ANNA], people=[make_person(0, asked_about=False)])
    found = recognise_faces(known, make_table(np.stack([face(0.9), face(0.4)])), make_bounds(2), RULES)
    assert verdicts(found) == [ASSIGN, LEAVE]


def test_only_the_surest_are_asked_about() -> None:
    known = make_known([ANNA, BEN])
    faces = [face(cosine) for cosine in (0.37, 0.41, 0.39, 0.36, 0.40)] + [face(0, 0.36)]
    rules = RecognitionRules(0.3, -1.0, 0.995, 0.5, asks_per_person=2)
    found = recognise_faces(known, make_table(np.stack(faces)), make_bounds(6), rules)
    assert verdicts(found) == [LEAVE, ASK, LEAVE, LEAVE, ASK, ASK]


def test_blocks_change_nothing_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    groups = [(normalise(random.standard_normal((count, 8))), NOTHING) for count in (4, 3, 3, 1)]
    faces = normalise(random.standard_normal((50, 8)))
    bounds = make_bounds(50, refused=[(row, row % 4) for row in range(0, 50, 3)], gone=range(5, 50, 7))
    told: list[int] = []
    whole = recognise_faces(make_known(groups), make_table(faces), bounds, RULES)
    monkeypatch.setattr("services.clustering.domain.recognising.BLOCK_NUMBERS", 4 * 6)
    parts = recognise_faces(make_known(groups), make_table(faces), bounds, RULES, told.append)
    np.testing.assert_array_equal(parts.people, whole.people)
    np.testing.assert_array_equal(parts.verdicts, whole.verdicts)
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-6)
    assert told == [6, 12, 18, 24, 30, 36, 42, 43]


def test_it_stops_between_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.clustering.domain.recognising.BLOCK_NUMBERS", 2)
    told: list[int] = []
    with pytest.raises(GroupingCancelled):
        recognise_faces(
            make_known([ANNA]), make_table(AXES), make_bounds(8), RULES, told.append, lambda: len(told) == 2
        )
    assert told == [2, 4]


def test_nothing_of_nothing() -> None:
    assert verdicts(recognise_faces(make_known([]), make_table(AXES), make_bounds(8), RULES)) == [LEAVE] * 8
    empty = make_table(np.empty((0, 8), dtype=np.float16))
    assert verdicts(recognise_faces(make_known([ANNA]), empty, make_bounds(0), RULES)) == []


def test_eras_by_days_are_those_of_the_house() -> None:
    born = date(1990, 2, 28)
    known = make_known([ANNA], people=[make_person(0, born=born)], eras=[Era.INFANT])
    days = [date(1990 + years, 2, 28) for years in range(60)]
    found = recognise_faces(known, make_table(np.stack([face(0.9)] * 60)), make_bounds(60, taken=days), RULES)
    near = [find_era(PartialDate(born), PartialDate(day)) in {Era.INFANT, Era.CHILD} for day in days]
    assert [verdict == ASSIGN for verdict in verdicts(found)] == near
