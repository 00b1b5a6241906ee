"""The forest is HDBSCAN."""

from __future__ import annotations

import numpy as np
import pytest
from hdbscan import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from bench.embeddings import generate_faces
from services.clustering.grouping.forest import compact_labels, form_groups, select_clusters
from shared.faces.agreement import separate_noise
from shared.faces.embeddings import normalise
from tests.unit.grouping.conftest import link_all


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_hdbscan_library_on_a_complete_graph(seed: int) -> None:
    """Up to ties: the library agrees with itself on permuted rows to 0.992-0.998."""
    vectors = generate_faces(1000, seed=seed).vectors
    ours = form_groups(
        link_all(vectors, 999),
        np.ones(1000, dtype=bool),
        link_floor=-1.0,
        min_cluster_size=3,
        min_samples=3,
        roots_are_groups=False,
    )
    library = HDBSCAN(min_cluster_size=3, min_samples=3, metric="euclidean").fit_predict(vectors.astype(np.float64))
    assert library.max() > 30
    assert adjusted_rand_score(separate_noise(library), separate_noise(ours)) >= 0.99


def test_the_order_of_rows_does_not_matter() -> None:
    vectors = generate_faces(800, seed=3).vectors
    order = np.random.default_rng(0).permutation(800)
    everybody = np.ones(800, dtype=bool)
    straight, mixed = (
        form_groups(link_all(rows, 32, 0.2), everybody, link_floor=0.35, min_cluster_size=3, min_samples=3)
        for rows in (vectors, vectors[order])
    )
    assert straight.max() > 20
    assert adjusted_rand_score(separate_noise(straight[order]), separate_noise(mixed)) == 1.0


def two_clumps(sizes: tuple[int, int], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.eye(16)[:2]
    return normalise(np.repeat(centres, sizes, axis=0) + 0.1 * random.standard_normal((sum(sizes), 16)))


def test_components_stay_apart_and_a_root_may_be_a_group() -> None:
    vectors = two_clumps((10, 5))
    labels = form_groups(
        link_all(vectors, 8, 0.5), np.ones(15, dtype=bool), link_floor=0.5, min_cluster_size=3, min_samples=3
    )
    first, second = set(labels[:10].tolist()), set(labels[10:].tolist())
    assert len(first) == len(second) == 1
    assert first | second == {0, 1}


def test_faces_that_are_no_seeds_form_nothing_and_lend_no_density() -> None:
    vectors = two_clumps((10, 5))
    seeds = np.ones(15, dtype=bool)
    seeds[12:] = False
    labels = form_groups(link_all(vectors, 8, 0.5), seeds, link_floor=0.5, min_cluster_size=3, min_samples=3)
    np.testing.assert_array_equal(labels, [0] * 10 + [-1] * 5)


def test_few_neighbours_still_make_a_group() -> None:
    vectors = two_clumps((10, 3))
    labels = form_groups(
        link_all(vectors, 8, 0.5), np.ones(13, dtype=bool), link_floor=0.5, min_cluster_size=3, min_samples=3
    )
    assert len(set(labels[10:])) == 1
    assert labels[10] >= 0


def test_nothing_above_the_floor_is_all_noise() -> None:
    vectors = np.eye(8, dtype=np.float32)
    labels = form_groups(
        link_all(vectors, 4, 0.5), np.ones(8, dtype=bool), link_floor=0.5, min_cluster_size=3, min_samples=3
    )
    assert (labels == -1).all()


def test_copies_of_one_face_are_one_group() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32)[:2], 20, axis=0)
    labels = form_groups(
        link_all(vectors, 8, 0.5), np.ones(40, dtype=bool), link_floor=0.5, min_cluster_size=3, min_samples=3
    )
    assert {tuple(sorted(set(labels[:20]))), tuple(sorted(set(labels[20:])))} == {(0,), (1,)}


def test_excess_of_mass_takes_the_more_stable_level() -> None:
    parents = np.array([-1, 0, 0, 1, 1], dtype=np.int32)
    for stabilities, roots, expected in (
        ([1.0, 2, 3, 0.5, 0.5], True, [-1, 1, 2, 1, 1]),
        ([9.0, 2, 3, 0.5, 0.5], True, [0, 0, 0, 0, 0]),
        ([9.0, 2, 3, 0.5, 0.5], False, [-1, 1, 2, 1, 1]),
        ([1.0, 2, 3, 1.5, 1.5], True, [-1, -1, 2, 3, 4]),
    ):
        np.testing.assert_array_equal(select_clusters(parents, np.array(stabilities), roots), expected)


def test_compact_labels() -> None:
    np.testing.assert_array_equal(compact_labels(np.array([7, -1, 3, 7])), [1, -1, 0, 1])
