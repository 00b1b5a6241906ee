"""Cutting a cluster along its tree of average linkage."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from bench.embeddings import generate_faces
from services.clustering.grouping.linkage import CutRequest, Labels, cut_faces, cut_in_process, plan_cut_bytes
from shared.faces.embeddings import Vectors, normalise


def people(*sizes: int, seed: int = 0, spread: float = 0.05) -> tuple[Vectors, Labels]:
    """Unit vectors of people at right angles to each other, shuffled, and whose each is."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    random.shuffle(truth)
    centres = np.eye(len(sizes), 32)
    return normalise(centres[truth] + spread * random.standard_normal((len(truth), 32))), truth


def sizes_of(labels: Labels) -> list[int]:
    return [int(size) for size in np.bincount(labels)]


def test_a_cut_by_cosine_is_that_of_scipy() -> None:
    faces = generate_faces(400, seed=3).vectors
    distances = 1.0 - (faces @ faces.T).astype(np.float64)
    tree = linkage(np.clip(distances[np.triu_indices(len(faces), 1)], 0.0, 2.0), "average")
    for cosine in (0.1, 0.3, 0.6):
        labels = cut_faces(CutRequest(faces, cosine=cosine, alone=True))
        assert adjusted_rand_score(fcluster(tree, 1.0 - cosine, "distance"), labels) == 1.0
        assert sizes_of(labels) == sorted(sizes_of(labels), reverse=True)


def test_parts_are_groups_whose_mean_cosine_is_below_the_one_asked_for() -> None:
    faces = generate_faces(200, seed=1).vectors
    labels = cut_faces(CutRequest(faces, cosine=0.4, alone=True))
    parts = [faces[labels == label] for label in range(int(labels.max()) + 1)]
    assert len(parts) > 3
    for index, part in enumerate(parts):
        for other in parts[:index]:
            assert float((part @ other.T).mean()) < 0.4 + 1e-5


def test_a_count_is_reached_without_single_faces_where_that_can_be() -> None:
    vectors, truth = people(9, 6, 3)
    assert adjusted_rand_score(truth, cut_faces(CutRequest(vectors, count=3))) == 1.0
    odd = normalise(np.eye(32)[[30, 31]])
    labels = cut_faces(CutRequest(np.concatenate([vectors, odd]), count=3))
    assert adjusted_rand_score(truth, labels[:-2]) == 1.0
    assert min(sizes_of(labels)) >= 3
    for count in range(2, 21):
        labels = cut_faces(CutRequest(np.concatenate([vectors, odd]), count=count))
        assert len(sizes_of(labels)) == count
    assert sizes_of(cut_faces(CutRequest(vectors, count=50))) == [1] * 18


def test_of_its_own_accord_one_person_is_whole_and_nobody_is_alone() -> None:
    one, _ = people(12)
    assert sizes_of(cut_faces(CutRequest(one, count=100, cosine=0.3))) == [12]
    mixed = np.concatenate([people(6, 5)[0], normalise(np.eye(32)[[30]])])
    assert sorted(sizes_of(cut_faces(CutRequest(mixed, count=100, cosine=0.3)))) in ([5, 7], [6, 6])
    assert len(sizes_of(cut_faces(CutRequest(people(*[2] * 8)[0], count=5, cosine=0.3)))) == 5


@pytest.mark.parametrize("faces", [0, 1, 2])
def test_few_faces(faces: int) -> None:
    vectors = normalise(np.eye(2, 8))[:faces]
    assert cut_faces(CutRequest(vectors, count=2)).tolist() == list(range(faces))
    assert cut_faces(CutRequest(vectors, count=2, cosine=0.3)).tolist() == [0] * faces


def test_equal_faces_are_cut_only_by_count() -> None:
    vectors = np.repeat(normalise(np.ones((1, 8))), 5, axis=0)
    assert sizes_of(cut_faces(CutRequest(vectors, cosine=0.999, alone=True))) == [5]
    assert len(sizes_of(cut_faces(CutRequest(vectors, count=2)))) == 2


def test_people_who_look_alike_are_parted_and_persons_left_whole() -> None:
    made = generate_faces(6000, seed=8)
    seen = (made.quality >= 0.2) & (made.truth >= 0)
    persons = [
        rows for name in np.unique(made.truth[seen]) if len(rows := np.flatnonzero(seen & (made.truth == name))) >= 8
    ]
    persons = persons[:40]

    def suggest(rows: npt.NDArray[np.integer]) -> Labels:
        return cut_faces(CutRequest(made.vectors[rows], count=100, cosine=0.3))

    whole = [int(suggest(rows).max()) == 0 for rows in persons]
    assert np.mean(whole) >= 0.8
    pairs = [np.concatenate(pair) for pair in zip(persons[::2], persons[1::2], strict=True)]
    assert np.mean([adjusted_rand_score(made.truth[rows], suggest(rows)) for rows in pairs]) >= 0.95


def test_another_process_finds_the_same() -> None:
    vectors, truth = people(5, 4)
    labels = cut_in_process(CutRequest(vectors, count=2), lambda _: None, lambda: False)
    assert adjusted_rand_score(truth, labels) == 1.0


def test_the_plan_is_of_all_pairs_twice() -> None:
    assert plan_cut_bytes(5000) == 2 * 8 * 5000 * 4999 // 2
    assert plan_cut_bytes(0) == plan_cut_bytes(1) == 0
