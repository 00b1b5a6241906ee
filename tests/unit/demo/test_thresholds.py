"""Fitting a pack's thresholds: on a made-up embedding space, where what is right is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from demo.pack.held_out import FoundFaces, pairwise_f1
from demo.pack.library import answer_rounds, find_questions, group_album, name_faces
from demo.pack.thresholds import (
    Thresholds,
    find_floor,
    fit_calibration,
    fit_thresholds,
    measure_questions,
)
from shared.faces.calibration import Calibration

PEOPLE = 8
FACES = 14
STRANGERS = 30
DIMENSION = 64


def make_album(seed: int, noise: float = 0.1) -> FoundFaces:
    """People around random directions, some faces far off, strangers anywhere; every photo shows one face."""
    rng = np.random.default_rng(seed)
    people = np.concatenate((np.repeat(np.arange(PEOPLE), FACES), PEOPLE + np.arange(STRANGERS)))
    centres = rng.normal(0, 1, (PEOPLE + STRANGERS, DIMENSION))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    spread = noise * rng.choice((0.5, 1.0, 1.8), (len(people), 1))
    vectors = centres[people] + rng.normal(0, 1, (len(people), DIMENSION)) * spread
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return FoundFaces(
        crops=np.empty((len(people), 0, 0, 3), np.uint8),
        people=people,
        photos=np.arange(len(people)),
        quality=np.full(len(people), 0.8),
        known=PEOPLE,
        drawn=len(people),
        missed=0,
        embeddings=vectors.astype(np.float32),
    )


@pytest.fixture(scope="module")
def albums() -> list[FoundFaces]:
    return [make_album(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def thresholds(albums: list[FoundFaces]) -> Thresholds:
    return fit_thresholds(albums)


def test_a_group_is_named_after_its_majority_without_those_who_do_not_belong() -> None:
    faces = make_album(1)
    labels = np.full(len(faces.people), -1, np.int32)
    labels[:5] = 0
    labels[FACES : FACES + 2] = 0
    labels[-4:] = 1
    assigned = name_faces(faces, labels)
    assert assigned[:5].tolist() == [0] * 5
    assert set(assigned[5:].tolist()) == {-1}


def test_floor_is_the_lowest_value_of_enough_precision() -> None:
    values = np.arange(20, 0, -1).astype(float)
    right = np.array([True] * 12 + [False] * 8)
    assert find_floor(values, right, 1.0) == 9.0
    assert find_floor(values, right, 0.75) == 5.0
    assert 20.0 < find_floor(values, ~right, 0.9) < 20.1


def test_strangers_and_left_over_faces_are_what_is_in_question(albums: list[FoundFaces]) -> None:
    faces = albums[0]
    assigned = np.where(faces.people < faces.known, faces.people, -1)
    assigned[:2] = -1
    by_prototypes, with_modes = (find_questions(faces, assigned, 0.3, modes=modes) for modes in (False, True))
    assert len(by_prototypes.scores) == STRANGERS + 2
    assert by_prototypes.right.sum() <= 2
    assert not by_prototypes.right[2:].any()
    assert (with_modes.scores >= by_prototypes.scores).all()
    assert (by_prototypes.margins >= 0).all()


def test_fitted_calibration_asks_questions_that_are_right(albums: list[FoundFaces], thresholds: Thresholds) -> None:
    assert thresholds.knn_floor < thresholds.link_floor
    assert thresholds.suggest_floor <= thresholds.assign_floor
    strict = replace(thresholds, attach=0.85)  # Leaves enough over to ask about.
    calibration = fit_calibration(albums, strict)
    assert calibration["slope"] > 0
    asked, right = measure_questions(albums, strict, calibration)
    assert asked > 0
    assert right >= 0.9


def test_what_is_answered_yes_is_not_asked_again(albums: list[FoundFaces]) -> None:
    faces = albums[0]
    assigned = np.where(faces.people < faces.known, faces.people, -1)
    assigned[::FACES] = -1
    sure_of_all = Calibration(slope=1.0, intercept=50.0)
    answers = answer_rounds(faces, assigned, -1.0, sure_of_all, 0.5)
    in_question = (assigned < 0).sum()
    assert len(answers) <= 4 * in_question
    assert answers.sum() <= (faces.people[assigned < 0] < faces.known).sum()
    assert not answers.all()


def test_fitted_groups_are_people(albums: list[FoundFaces], thresholds: Thresholds) -> None:
    for faces in albums:
        labels = group_album(faces, thresholds.grouping).astype(np.int64)
        precision, recall, _ = pairwise_f1(faces.people, labels)
        assert precision >= 0.95
        assert recall >= 0.6
