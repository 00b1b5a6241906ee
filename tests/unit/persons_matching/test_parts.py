"""The parts of a training, each by what it claims."""

from __future__ import annotations

import numpy as np
import pytest

from services.persons.matching.descent import descend
from services.persons.matching.judging import compare_spaces
from services.persons.matching.request import TrainingOptions
from services.persons.matching.split import split_people
from services.persons.matching.triplets import PersonRows, draw_batch, measure_loss
from services.persons.matching.whitening import make_start, measure_scatter
from shared.faces.embeddings import Vectors, normalise
from tests.unit.persons_matching.conftest import make_faces

OPTIONS = TrainingOptions()


def test_nobody_is_in_two_parts_and_everybody_is_in_one() -> None:
    people = np.repeat(np.arange(100), 7)[np.random.default_rng(0).permutation(700)]
    split = split_people(people, OPTIONS)
    parts = [set(people[rows].tolist()) for rows in (split.training, split.tuning, split.held_out)]
    assert [len(part) for part in parts] == [52, 15, 33]
    assert set().union(*parts) == set(range(100))
    assert len(split.training) + len(split.tuning) + len(split.held_out) == 700
    for rows in (split.training, split.tuning, split.held_out):
        assert (np.diff(people[rows]) >= 0).all()


def test_what_is_measured_is_bounded_and_the_rest_is_learnt_from() -> None:
    people = np.repeat(np.arange(300), 40)
    split = split_people(people, TrainingOptions(measured_faces=1000, measured_per_person=10))
    assert len(split.held_out) == 1000
    assert len(split.tuning) == 450
    assert set(np.bincount(people[split.held_out])[people[split.held_out]]) == {10}
    assert len(split.training) == (300 - 100 - 45) * 40
    with pytest.raises(ValueError, match="without a person"):
        split_people(np.array([0, 0, 1, 1]), OPTIONS)


def test_the_start_makes_one_persons_faces_scatter_alike_in_every_direction() -> None:
    vectors, people = make_faces(400, 10)
    scatter = measure_scatter(vectors, people)
    spread = scatter.values.max() / scatter.values.min()
    spreads = []
    for shrinkage in (3.0, 0.3, 0.01):
        around = measure_scatter(vectors @ make_start(scatter, shrinkage), people).values
        spreads.append(around.max() / around.min())
    assert spread > spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 1.3 < 10 < spread


def test_without_whitening_no_cosine_changes() -> None:
    vectors, people = make_faces(40, 5)
    start = make_start(measure_scatter(vectors, people), None)
    np.testing.assert_allclose(start.T @ start, np.eye(32), atol=1e-5)
    projected = vectors @ start
    np.testing.assert_allclose(projected @ projected.T, vectors @ vectors.T, atol=1e-5)
    # The first axes hold most of what there is.
    assert (np.diff((projected**2).sum(axis=0)) < 1e-3).all()


def test_the_gradient_is_that_of_the_loss() -> None:
    random = np.random.default_rng(3)
    vectors, people = make_faces(6, 3, dimension=8)
    matrix = random.standard_normal((8, 5)).astype(np.float32)
    loss, gradient = measure_loss(matrix, vectors, people, OPTIONS)
    assert loss > 0
    step = 1e-3
    for row, column in [(0, 0), (3, 2), (7, 4), (5, 1)]:
        nudge = np.zeros_like(matrix)
        nudge[row, column] = step
        up, down = (measure_loss(matrix + sign * nudge, vectors, people, OPTIONS)[0] for sign in (1, -1))
        assert gradient[row, column] == pytest.approx((up - down) / (2 * step), rel=0.05, abs=2e-4)


@pytest.mark.parametrize("people", [[0, 1, 2], [0, 0, 0]])
def test_a_batch_without_a_triplet_teaches_nothing(people: list[int]) -> None:
    vectors = normalise(np.random.default_rng(0).standard_normal((3, 8)))
    loss, gradient = measure_loss(np.eye(8, dtype=np.float32), vectors, np.array(people), OPTIONS)
    assert loss == 0
    assert not gradient.any()


def test_a_batch_holds_persons_with_those_nearest_to_them() -> None:
    # Four persons in each of ten places: whoever is drawn, so are the three others of that place.
    random = np.random.default_rng(0)
    places = np.repeat(normalise(random.standard_normal((10, 32))), 4, axis=0)
    people = np.repeat(np.arange(40), 6)
    vectors = normalise(places[people] + 0.02 * random.standard_normal((240, 32)))
    rows = PersonRows.of(people)
    options = TrainingOptions(batch_people=16, faces_each=3)
    batch, whose = draw_batch(rows, rows.find_means(vectors), random, options)
    assert (people[batch] == whose).all()
    assert len(set(batch.tolist())) == len(batch)
    drawn, sizes = np.unique(whose, return_counts=True)
    assert set(sizes) == {3}
    assert len(drawn) % 4 == 0
    assert (np.bincount(drawn // 4)[np.unique(drawn // 4)] == 4).all()


def test_descending_alone_tells_people_apart_better() -> None:
    vectors, people = make_faces(40, 8)
    epochs = list(descend(vectors, people, TrainingOptions(epochs=30, rate=1e-2), lambda: None))
    assert epochs[-1].loss < epochs[0].loss / 2
    new, whose = make_faces(40, 8)
    verdict = compare_spaces(new, normalise(new @ epochs[-1].matrix), whose, 0)
    assert verdict.better


def test_a_hard_pull_holds_the_matrix_where_it_started() -> None:
    vectors, people = make_faces(40, 8)

    def moved(pull: float) -> float:
        *_, last = descend(vectors, people, TrainingOptions(epochs=30, rate=1e-2, pull=pull), lambda: None)
        return float(np.linalg.norm(last.matrix - np.eye(32)))

    assert moved(1.0) < moved(0.0) / 3


def spaces(gain: float, people: int) -> tuple[Vectors, Vectors, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """One set of faces in two spaces; in the second each person's scatter less by ``gain``."""
    random = np.random.default_rng(9)
    whose = np.repeat(np.arange(people), 8).astype(np.int64)
    centres = normalise(random.standard_normal((people, 24)))[whose]
    noise = random.standard_normal((len(whose), 24)) / np.sqrt(24)
    return normalise(centres + 0.9 * noise), normalise(centres + 0.9 * (1 - gain) * noise), whose


def test_the_same_space_is_not_better() -> None:
    before, _, whose = spaces(0.0, 40)
    verdict = compare_spaces(before, before, whose, 0)
    assert verdict.before == verdict.after
    assert not verdict.better


def test_a_plain_gain_is_better_and_a_loss_is_not() -> None:
    before, after, whose = spaces(0.2, 40)
    verdict = compare_spaces(before, after, whose, 0)
    assert verdict.better
    assert 0 < verdict.gain_low < verdict.after.tar_at_far_1e3 - verdict.before.tar_at_far_1e3
    assert not compare_spaces(after, before, whose, 0).better


def test_a_gain_of_one_person_alone_may_be_luck() -> None:
    before, after, whose = spaces(0.5, 40)
    lucky = np.where((whose == 3)[:, None], after, before)
    verdict = compare_spaces(before, lucky, whose, 0)
    assert verdict.after.tar_at_far_1e3 > verdict.before.tar_at_far_1e3 + 0.002
    assert verdict.gain_low <= 0
    assert not verdict.better
