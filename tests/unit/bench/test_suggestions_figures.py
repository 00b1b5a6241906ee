"""What the bench of suggestions counts as found, right, near-duplicate and sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.areas.suggestions.counting import list_own
from bench.areas.suggestions.faces import LARGEST_SHOT, DrawnFaces, find_shots
from bench.areas.suggestions.figures import score_pairs
from bench.areas.suggestions.finding import Missing
from bench.areas.suggestions.people import FACES_LABELLED, Pairs, Standing, choose_labelled
from shared.faces.embeddings import Vectors, normalise


def make_faces(truth: list[int], vectors: Vectors | None = None) -> DrawnFaces:
    """Faces that are all alike unless vectors are given, each in a photo unlike all others."""
    count = len(truth)
    rows = np.ones((count, 4), np.float32) if vectors is None else vectors
    return DrawnFaces(
        normalise(rows).astype(np.float16), np.array(truth), np.full(count, 0.8, np.float32), np.arange(count)
    )


def make_pairs(*pairs: tuple[int, int]) -> Pairs:
    faces, persons = zip(*pairs, strict=True)
    return Pairs(np.array(faces), np.array(persons), np.ones(len(pairs)))


def test_a_wanted_face_is_found_by_a_question_about_it_or_its_near_duplicate() -> None:
    drawn = replace(make_faces([0, 0, 0, 1, 1, -1]), shots=np.array([0, 0, 2, 3, 4, 5]))
    wanted = np.array([True, True, True, True, True, False])
    found = score_pairs(drawn, make_pairs((0, 0), (3, 1), (5, 1), (4, 0)), wanted)
    # Of person 0 two of three, of person 1 one of two: a question about the wrong person finds nothing.
    assert found.pairs == 4
    assert found.precision == pytest.approx(2 / 4)
    assert found.recall == pytest.approx(3 / 5)
    assert found.recall_of_persons == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_near_copies_of_one_person_are_a_shot_and_never_too_many() -> None:
    near = np.tile([1.0, 0.0, 0.0, 0.0], (LARGEST_SHOT + 3, 1)).astype(np.float32)
    other = np.array([[0.0, 1.0, 0.0, 0.0], [0.97, 0.243, 0.0, 0.0]], np.float32)
    vectors = np.concatenate([near, other, near[:2], near[:2]])
    truth = np.array([0] * (len(near) + 2) + [1, 1] + [-1, -1])
    shots = find_shots(vectors, truth)
    _, sizes = np.unique(shots, return_counts=True)
    assert sizes.max() == LARGEST_SHOT
    first = len(near)
    assert shots[first : first + 2].tolist() == [first, first + 1]
    # Another person's near copies are a shot of their own, and nobody's are none.
    assert shots[first + 2 :].tolist() == [first + 2, first + 2, first + 4, first + 5]


def test_wanted_are_unassigned_faces_like_a_prototype_of_their_own_person() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 0, 2]]
    drawn = make_faces([0, 0, 0, 1, 1], vectors)
    standing = Standing(np.array([0, 4]), np.array([0, 1]), np.array([True, False, False, False, True]))
    assert standing.find_wanted(drawn).tolist() == [False, True, False, False, False]


def test_the_same_people_are_labelled_each_time_and_all_have_faces_left() -> None:
    drawn = make_faces(np.repeat(np.arange(100), np.arange(100) % 12 + 1).tolist())
    chosen = choose_labelled(drawn)
    assert len(chosen) == 2
    for number, rows in chosen.items():
        assert len(set(rows.tolist())) == FACES_LABELLED
        assert (drawn.truth[rows] == number).all()
        assert np.count_nonzero(drawn.truth == number) > FACES_LABELLED
    assert {number: rows.tolist() for number, rows in choose_labelled(drawn).items()} == {
        number: rows.tolist() for number, rows in chosen.items()
    }


@pytest.mark.parametrize(("estimate", "within"), [(8.0, True), (12.0, True), (7.9, False), (12.1, False)])
def test_an_estimate_may_be_a_fifth_off(estimate: float, within: bool) -> None:
    assert Missing(10, estimate, estimate - 1, estimate + 1).within_20pct is within


def test_the_bookkeeping_of_jobs_is_counted_apart() -> None:
    own = ["INSERT INTO suggestions (job_id) SELECT 1", "SELECT 1 FROM faces"]
    machinery = ["UPDATE job_slices SET x = 1", "SELECT state FROM jobs", "SELECT pg_notify('jobs', '')"]
    assert list_own([*own, *machinery]) == own
