"""Figures of a grouping against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hdbscan.validity import validity_index
from sklearn.metrics import silhouette_score

from bench.embeddings import GeneratedFaces
from services.clustering.grouping import measures
from services.clustering.grouping.measures import (
    find_medoids,
    gather_centroids,
    measure_groups,
    measure_peak_bytes,
    measure_silhouette,
    measure_validity,
)
from services.clustering.grouping.request import GroupingSizes
from services.clustering.grouping.sums import sum_groups
from shared.faces.centroid import compute_centroid
from tests.unit.grouping.conftest import no_check


def few_people(faces: GeneratedFaces) -> tuple[np.ndarray, np.ndarray]:
    """The faces of everybody with four or more, and their names 0..K-1; the others are noise."""
    sizes = np.bincount(faces.truth + 2)
    known = (faces.truth >= 0) & (sizes[faces.truth + 2] >= 4)
    labels = np.full(len(faces.truth), -1, dtype=np.int32)
    labels[known] = np.unique(faces.truth[known], return_inverse=True)[1]
    return faces.vectors, labels


def test_every_centroid_is_the_one_everybody_uses(faces_5k: GeneratedFaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some groups are trimmed, and they come in several batches."""
    vectors, labels = few_people(faces_5k)
    groups = int(labels.max()) + 1
    monkeypatch.setattr(measures, "SLICE_ROWS", 500)
    steps: list[tuple[int, int]] = []
    centroids, confidence = gather_centroids(vectors, labels, groups, lambda done, total: steps.append((done, total)))
    assert len(steps) > 1
    assert all(total == groups for _, total in steps)
    for group in range(0, groups, 7):
        np.testing.assert_allclose(centroids[group], compute_centroid(vectors[labels == group]), atol=1e-6)
    own = np.einsum("nd,nd->n", vectors, centroids[labels])
    np.testing.assert_allclose(confidence, np.where(labels >= 0, np.clip(own, 0, 1), 0), atol=1e-6)


def test_the_silhouette_is_that_of_all_pairs(faces_1k: GeneratedFaces) -> None:
    vectors, labels = few_people(faces_1k)
    grouped = labels >= 0
    expected = silhouette_score(vectors[grouped], labels[grouped], metric="cosine")
    found = measure_silhouette(vectors, labels, sum_groups(vectors, labels, no_check))
    assert found == pytest.approx(float(expected), abs=1e-4)


def test_the_silhouette_of_a_sample_is_near_that_of_all(faces_5k: GeneratedFaces) -> None:
    vectors, labels = few_people(faces_5k)
    grouped = labels >= 0
    assert grouped.sum() > 2500
    expected = silhouette_score(vectors[grouped], labels[grouped], metric="cosine")
    found = measure_silhouette(vectors, labels, sum_groups(vectors, labels, no_check))
    assert found == pytest.approx(float(expected), abs=0.02)


def test_validity_is_that_of_the_library_where_all_groups_are_in_the_sample(faces_1k: GeneratedFaces) -> None:
    vectors, labels = few_people(faces_1k)
    labels = np.where(labels < 12, labels, -1).astype(np.int32)
    figures = measure_groups(vectors, labels, GroupingSizes(), no_check)
    grouped = labels >= 0
    assert np.bincount(labels[grouped]).max() <= 100
    with np.errstate(all="ignore"):
        expected = validity_index(vectors[grouped].astype(np.float64), labels[grouped].astype(np.int64))
    assert measure_validity(vectors, labels, figures.nearest) == pytest.approx(float(expected), abs=1e-6)


def test_people_apart_score_better_than_people_mixed(faces_1k: GeneratedFaces) -> None:
    vectors, labels = few_people(faces_1k)
    mixed = np.where(labels >= 0, np.random.default_rng(0).permutation(labels), -1)
    mixed = np.where(labels >= 0, np.where(mixed >= 0, mixed, 0), -1).astype(np.int32)
    for part in (labels, mixed):
        assert set(np.unique(part)) == set(range(-1, int(labels.max()) + 1))
    nearest = measure_groups(vectors, labels, GroupingSizes(), no_check).nearest
    assert measure_validity(vectors, labels, nearest) > measure_validity(vectors, mixed, nearest)
    good, bad = (measure_silhouette(vectors, part, sum_groups(vectors, part, no_check)) for part in (labels, mixed))
    assert good > 0.2 > 0 > bad


def test_one_group_has_no_other(faces_1k: GeneratedFaces) -> None:
    labels = np.full(1000, -1, dtype=np.int32)
    labels[:5] = 0
    figures = measure_groups(faces_1k.vectors, labels, GroupingSizes(), no_check)
    assert figures.nearest.tolist() == [-1]
    assert np.isnan(figures.separations).tolist() == [True]
    assert measure_silhouette(faces_1k.vectors, labels, sum_groups(faces_1k.vectors, labels, no_check)) == 0.0
    assert measure_validity(faces_1k.vectors, labels, figures.nearest) == 0.0


def test_copies_of_one_picture_do_not_break_the_figures() -> None:
    vectors = np.repeat(np.eye(8, dtype=np.float32)[:2], 5, axis=0)
    labels = np.repeat(np.arange(2, dtype=np.int32), 5)
    figures = measure_groups(vectors, labels, GroupingSizes(), no_check)
    np.testing.assert_allclose(figures.cohesions, 1.0, atol=1e-6)
    np.testing.assert_allclose(figures.separations, 1.0, atol=1e-6)
    assert measure_silhouette(vectors, labels, sum_groups(vectors, labels, no_check)) == pytest.approx(1.0, abs=1e-5)
    assert -1.0 <= measure_validity(vectors, labels, figures.nearest) <= 1.0


def test_the_medoid_is_the_nearest_and_of_equals_the_first() -> None:
    labels = np.array([1, 0, -1, 0, 1, 0], dtype=np.int32)
    confidence = np.array([0.5, 0.7, 0.0, 0.9, 0.5, 0.2], dtype=np.float32)
    medoids, cohesions = find_medoids(labels, confidence, 2)
    assert medoids.tolist() == [3, 0]
    np.testing.assert_allclose(cohesions, [0.6, 0.5])


def test_the_peak_is_in_bytes() -> None:
    before = measure_peak_bytes()
    assert before > 2**26
    room = np.ones(2 * before, dtype=np.uint8)
    assert measure_peak_bytes() - before > room.nbytes // 4
